"""Picture files: each is found once, and read as a person sees it, or refused by name."""

import logging
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image

from torchfromscratch.errors import UserError

# Those of torchvision's ImageFolder.
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# What is said of pictures that are not read just as they are, behind their number.
FIRST_FRAME = "of several frames, of which the first was read"
FROM_16_BITS = "brought from 16 bits to 8"
FROM_CMYK = "brought from CMYK to RGB"
ON_WHITE = "transparent, laid on white"
UPRIGHT = "turned upright, as their EXIF data says"
FOUND_BEFORE = "left out, the same file as another by a link"
NO_REGULAR_FILE = "left out, a pipe, a socket or a device"

BITS_PER_SAMPLE, WHITE_OR_BLACK_IS_ZERO = 0x0102, 0x0106  # TIFF's tags
ORIENTATION = 0x0112  # EXIF's
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
OPAQUE_MODES = {"1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs of a damaged file, the error says


@dataclass(frozen=True)
class LabelledFiles:
    """The pictures in class folders.

    Attributes:
        classes: the folders' names in alphabetical order, as text: a byte that is no UTF-8 is spelled \\xff.
        samples: path and class of each picture.
        left_out: how many files with a picture's name were left out, by the reason.
    """

    classes: list[str]
    samples: list[tuple[str, int]]
    left_out: Counter[str]


def find_labelled(root: Path) -> LabelledFiles:
    """The pictures in the folders of `root`, one for each class, and in all folders below.

    A picture is a regular file with a picture's ending, and counts once, however many links lead to it. Links to
    folders are followed, but never into a folder twice, nor up into one that holds the class folder or `root`.

    Raises:
        UserError: if a folder cannot be read or has no pictures, a link leads nowhere, or a file is in two classes.
    """
    try:
        folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except OSError as error:
        _refuse_folder(error)
    found: dict[tuple[int, int], tuple[str, int]] = {}
    left_out: Counter[str] = Counter()
    for label, folder in enumerate(folders):
        before = len(found)
        for path in _walk(root, folder):
            status = _status(path)
            file = status.st_dev, status.st_ino
            if not stat.S_ISREG(status.st_mode):
                left_out[NO_REGULAR_FILE] += 1
            elif file not in found:
                found[file] = path, label
            elif found[file][1] == label:
                left_out[FOUND_BEFORE] += 1
            else:
                raise UserError(f"{found[file][0]} and {path} are one file in two classes; delete one of them")
        if len(found) == before:
            raise UserError(f"{root}/{folder} has no pictures ({', '.join(PICTURE_ENDINGS)}); add some or delete it")
    return LabelledFiles([_as_text(name) for name in folders], list(found.values()), left_out)


def read_picture(path: str | Path) -> tuple[Image.Image, list[str]]:
    """A picture in RGB as a person sees it, and how it was converted, as the constants above say.

    Raises:
        UserError: if the file is damaged, or does not say how light its pixels are, as floating-point ones.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("no regular file")
        with Image.open(path) as picture:
            several = getattr(picture, "is_animated", False)
            picture.load()
            transposition = TRANSPOSITIONS.get(picture.getexif().get(ORIENTATION, 1))
            opaque, conversions = _opaque(picture)
    except Exception as error:
        raise UserError(
            f"cannot read the picture {path} ({error or type(error).__name__}); repair, convert or delete it"
        ) from error
    if transposition is not None:
        opaque = opaque.transpose(transposition)
        conversions.append(UPRIGHT)
    if several:
        conversions.append(FIRST_FRAME)
    return opaque, conversions


def _opaque(picture: Image.Image) -> tuple[Image.Image, list[str]]:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        return _from_16_bits(picture).convert("RGB"), [FROM_16_BITS]
    if picture.mode == "CMYK":
        return picture.convert("RGB"), [FROM_CMYK]
    if picture.mode in OPAQUE_MODES and "transparency" not in picture.info:
        return picture.convert("RGB"), []
    picture = picture.convert("RGBA")
    if picture.getextrema()[-1] == (255, 255):
        return picture.convert("RGB"), []
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB"), [ON_WHITE]


def _from_16_bits(picture: Image.Image) -> Image.Image:
    """The picture with 8 bits. Pillow gives PPM's 16 bits 32, of which nothing else says which number is white."""
    if not (picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))):
        raise ValueError(f"its pixels are {'floating-point' if picture.mode == 'F' else '32-bit'} numbers")
    if "transparency" in picture.info:
        raise ValueError("16-bit grey with a transparent shade")
    tags = getattr(picture, "tag_v2", {})
    largest = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    pixels = np.asarray(picture).astype(np.int64)
    if tags.get(WHITE_OR_BLACK_IS_ZERO) == 0:
        pixels = largest - pixels
    return Image.fromarray(np.rint(pixels * (255 / largest)).astype(np.uint8))


def _walk(root: Path, folder: str) -> list[str]:
    """The files with a picture's ending in a class folder of `root` and below."""
    start = (root / folder).resolve()
    entered = set(map(str, [start, *start.parents, root.resolve(), *root.resolve().parents]))
    found = []
    for path, folders, names in os.walk(root / folder, onerror=_refuse_folder, followlinks=True):
        folders[:] = [name for name in sorted(folders) if _enter(os.path.join(path, name), entered)]
        found += [(path, name) for name in names if name.lower().endswith(PICTURE_ENDINGS)]
    return [os.path.join(path, name) for path, name in sorted(found)]


def _enter(folder: str, entered: set[str]) -> bool:
    """Whether the folder is a new one; then it is one no more."""
    place = os.path.realpath(folder)
    new = place not in entered
    entered.add(place)
    return new


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise UserError(f"cannot read the picture {path} ({error.strerror}); repair or delete it") from error


def _refuse_folder(error: OSError) -> NoReturn:
    raise UserError(f"cannot read the folder {error.filename} ({error.strerror})") from error


def _as_text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
