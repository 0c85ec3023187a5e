"""A picture is read as a person sees it or refused by name, and files are found once, whatever links there are."""

import io
import os
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from torchfromscratch.errors import UserError
from torchfromscratch.notes.feature_maps import load_picture
from torchfromscratch.training.data import load_dataset
from torchfromscratch.training.picture_files import (
    FIRST_FRAME,
    FOUND_BEFORE,
    FROM_16_BITS,
    FROM_CMYK,
    NO_REGULAR_FILE,
    ON_WHITE,
    UPRIGHT,
    find_labelled,
    read_picture,
)

Save = Callable[..., Path]

SHADES = np.linspace(0, 255, 12).reshape(3, 4).round().astype(np.uint8)
COLOURS = np.stack([SHADES, SHADES[::-1], 255 - SHADES], axis=2)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves an array or a picture in tmp_path."""

    def save(picture: np.ndarray | Image.Image, name: str, **options: object) -> Path:
        made = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        made.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    picture, conversions = read_picture(path)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int), conversions


def grey(shades: np.ndarray) -> np.ndarray:
    return shades[..., None].repeat(3, axis=2)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_16_bits_are_brought_to_8(ending: str, save: Save) -> None:
    pixels, conversions = read(save((SHADES * 257.0 + 100 * (SHADES < 200)).astype(np.uint16), f"a.{ending}"))
    assert np.array_equal(pixels, grey(SHADES)), "to the nearest of 256 shades"
    assert conversions == [FROM_16_BITS]


@pytest.mark.parametrize(("tag", "value", "expected"), [(0x0106, 0, 255 - SHADES), (0x0102, 12, SHADES)])
def test_16_bits_whose_white_the_file_tells(tag: int, value: int, expected: np.ndarray, save: Save) -> None:
    largest = 4095 if value == 12 else 65535
    path = save((SHADES.astype(int) * largest // 255).astype(np.uint16), "a.tif")
    with Image.open(path) as picture:
        picture.tag_v2[tag] = (value,) if tag == 0x0102 else value
        from torchfromscratch.training.picture_files import _from_16_bits

        assert np.array_equal(np.asarray(_from_16_bits(picture)), expected)


@pytest.mark.parametrize(("mode", "kind"), [("I", "32-bit"), ("F", "floating-point")])
def test_pixels_whose_white_nothing_tells_are_refused_by_name(mode: str, kind: str, save: Save) -> None:
    path = save(Image.fromarray(SHADES).convert(mode), "a.tif")
    with pytest.raises(UserError, match=rf"{path} \(its pixels are {kind} numbers\)"):
        read_picture(path)


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_transparent_pixels_show_white(ending: str, save: Save) -> None:
    alpha = np.where(np.arange(4) < 2, 0, 255).astype(np.uint8) * np.ones((3, 1), np.uint8)
    pixels, conversions = read(save(np.dstack([COLOURS, alpha]), f"a.{ending}", lossless=True))
    assert (pixels[:, :2] == 255).all()
    assert np.array_equal(pixels[:, 2:], COLOURS[:, 2:])
    assert conversions == [ON_WHITE]


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_shade_that_stands_for_transparency_shows_white(mode: str, save: Save) -> None:
    picture = Image.new(mode, (2, 1), 0)
    picture.putpixel((1, 0), 5 if mode != "RGB" else (5, 5, 5))
    pixels, conversions = read(save(picture, "a.png", transparency=0 if mode != "RGB" else (0, 0, 0)))
    assert (pixels[0, 0] == 255).all()
    assert (pixels[0, 1] < 255).any()
    assert conversions == [ON_WHITE]


def test_opaque_pictures_are_not_counted(save: Save) -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA"):
        expected = Image.fromarray(COLOURS).convert(mode)
        pixels, conversions = read(save(expected, f"{mode}.png"))
        assert np.array_equal(pixels, np.asarray(expected.convert("RGB")))
        assert conversions == []


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_pictures_are_turned_upright(ending: str, orientation: int, save: Save) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(COLOURS.repeat(8, 0).repeat(8, 1), f"a.{ending}", exif=exif)
    pixels, conversions = read(path)
    with Image.open(path) as picture:
        assert np.array_equal(pixels, np.asarray(ImageOps.exif_transpose(picture).convert("RGB")))
    assert conversions == ([] if orientation == 1 else [UPRIGHT])


def test_cmyk_is_counted(save: Save) -> None:
    assert read(save(Image.fromarray(COLOURS).convert("CMYK"), "a.jpg"))[1] == [FROM_CMYK]


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_of_several_frames_the_first_is_read(ending: str, save: Save) -> None:
    more = {"save_all": True, "append_images": [Image.fromarray(255 - COLOURS)], "lossless": True}
    pixels, conversions = read(save(COLOURS, f"a.{ending}", **more))
    assert np.array_equal(pixels, COLOURS)
    assert conversions == [FIRST_FRAME]


def test_what_was_converted_is_counted_for_each_part(tmp_path: Path) -> None:
    for part, transparent in (("train", 3), ("test", 0)):
        for name in ("cats", "dogs"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                mode = "RGBA" if name == "cats" and number < transparent else "RGB"
                Image.new(mode, (8, 8)).save(tmp_path / part / name / f"{number}.png")
    os.mkfifo(tmp_path / "test/dogs/pipe.png")
    assert load_dataset("folder", tmp_path).remarks == (
        f"training pictures: 3 {ON_WHITE}",
        f"test pictures: 1 {NO_REGULAR_FILE}",
    )


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two pictures of cats, one in a folder of its own, and one of dogs."""
    for name in ("cats/1.png", "cats/old/2.png", "dogs/3.png"):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(path)
    return tmp_path / "train"


def found(root: Path) -> list[tuple[str, str]]:
    files = find_labelled(root)
    return [(os.path.relpath(path, root), files.classes[label]) for path, label in files.samples]


ALL = [("cats/1.png", "cats"), ("cats/old/2.png", "cats"), ("dogs/3.png", "dogs")]


@pytest.mark.parametrize(
    "links",
    [
        {},
        {"cats/self": "."},
        {"cats/self": ".", "cats/again": "../cats"},
        {"cats/up": ".."},
        {"cats/old/up": "../.."},
        {"cats/root": "/"},
        {"cats/zz": "old"},
        {"dogs/one": "two", "dogs/two": "."},
    ],
    ids=str,
)
def test_links_to_folders_find_no_picture_twice(links: dict[str, str], classes: Path) -> None:
    for link, target in links.items():
        (classes / link).symlink_to(target)
    assert found(classes) == ALL


def test_links_to_folders_elsewhere_are_followed(classes: Path, tmp_path: Path) -> None:
    shutil.move(classes / "cats", tmp_path / "elsewhere")
    (classes / "cats").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(classes)
    (tmp_path / "elsewhere/old/up").symlink_to("../..")
    assert found(classes) == ALL


def test_links_to_a_picture_count_once(classes: Path) -> None:
    (classes / "cats/4.png").symlink_to("1.png")
    os.link(classes / "cats/1.png", classes / "cats/5.png")
    assert found(classes) == ALL
    assert find_labelled(classes).left_out == {FOUND_BEFORE: 2}


@pytest.mark.parametrize(("link", "target"), [("dogs/4.png", "../cats/1.png"), ("dogs/more", "../cats")])
def test_a_picture_of_two_classes_is_refused_by_name(link: str, target: str, classes: Path) -> None:
    (classes / link).symlink_to(target)
    with pytest.raises(UserError, match=r"cats/1.png and .*dogs/\S+ are one file in two classes"):
        find_labelled(classes)


def test_what_is_no_regular_file_is_left_out(classes: Path) -> None:
    os.mkfifo(classes / "cats/pipe.png")
    (classes / "cats/device.png").symlink_to("/dev/zero")
    (classes / "cats/folder.png").mkdir()
    assert found(classes) == ALL
    assert find_labelled(classes).left_out == {NO_REGULAR_FILE: 2}


def test_a_link_that_leads_nowhere_is_refused_by_name(classes: Path) -> None:
    (classes / "cats/gone.png").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"cats/gone.png \(No such file"):
        find_labelled(classes)


def test_a_class_without_pictures_is_refused_by_name(classes: Path) -> None:
    (classes / "birds").mkdir()
    with pytest.raises(UserError, match=r"train/birds has no pictures"):
        find_labelled(classes)


def test_classes_are_text_whatever_their_folders_are_called(classes: Path) -> None:
    os.rename(os.fsencode(classes / "dogs"), os.fsencode(classes) + b"/d\xf6g$")
    assert find_labelled(classes).classes == ["cats", "d\\xf6g$"]
    assert read_picture(find_labelled(classes).samples[-1][0])


@pytest.mark.parametrize("name", ["pipe.png", "/dev/zero", "."])
def test_reading_waits_for_nobody(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for reader in (read_picture, load_picture):
        with pytest.raises(UserError, match="no regular file"):
            reader(tmp_path / name)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A picture's bytes with some of them changed, cut off, doubled or made extreme."""
    damaged = bytearray(content)
    kind = chance.choice(["cut", "bytes", "header", "extreme", "doubled"])
    place = chance.randrange(len(damaged))
    if kind == "cut":
        del damaged[place:]
    elif kind == "doubled":
        damaged[place:place] = damaged[: chance.randrange(1, 64)]
    elif kind == "extreme":
        place = chance.randrange(min(128, len(damaged)))
        damaged[place : place + 4] = chance.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\1\0"])
    else:
        end = min(64, len(damaged)) if kind == "header" else len(damaged)
        for _ in range(chance.choice([1, 2, 4, 16])):
            damaged[chance.randrange(end)] = chance.randrange(256)
    return bytes(damaged)


def originals(ending: str) -> list[bytes]:
    """Pictures of one format in each of the modes that it has."""
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8))
    contents = []
    for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"):
        picture = noise.convert("I" if mode == "I;16" else mode).convert(mode)
        for options in ({"exif": exif}, {"save_all": True, "append_images": [picture]}, {"compression": "tiff_lzw"}):
            content = io.BytesIO()
            try:
                picture.save(content, Image.registered_extensions()[ending], **options)
            except (OSError, KeyError):
                continue  # the format has no such mode, or no frames
            contents.append(content.getvalue())
    return contents


def fuzz(ending: str, number: int, path: Path) -> Counter[str]:
    """How many of so many damaged pictures were read, and refused; anything else is raised."""
    chance = random.Random(ending)
    kinds = originals(ending)
    outcomes: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(number):
            path.write_bytes(damaged(chance.choice(kinds), chance))
            try:
                picture, _ = read_picture(path)
            except UserError:
                outcomes["refused"] += 1
            else:
                ImageOps.fit(picture, (8, 8))
                outcomes["read"] += 1
    return outcomes


ENDINGS = pytest.mark.parametrize("ending", [".png", ".jpg", ".ppm", ".pgm", ".bmp", ".tif", ".webp"])


@ENDINGS
def test_damaged_pictures_are_refused_by_name(ending: str, tmp_path: Path) -> None:
    outcomes = fuzz(ending, 60, tmp_path / f"a{ending}")
    assert outcomes["refused"] > 10


@pytest.mark.slow
@ENDINGS
def test_no_damaged_picture_escapes(ending: str, tmp_path: Path) -> None:
    outcomes = fuzz(ending, 1000, tmp_path / f"a{ending}")
    print(f"{ending}: {dict(outcomes)}")
    assert outcomes["refused"] > 200


def test_a_picture_that_would_fill_memory_is_refused_by_name(tmp_path: Path) -> None:
    bomb = tmp_path / "a.bmp"
    Image.new("1", (8, 8)).save(bomb)
    content = bytearray(bomb.read_bytes())
    content[18:26] = (100_000).to_bytes(4, "little") * 2  # width and height
    bomb.write_bytes(content)
    for reader in (read_picture, load_picture):
        with pytest.raises(UserError, match="decompression bomb"):
            reader(bomb)
