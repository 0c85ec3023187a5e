"""Packages that only a part of this one needs, and how to install them.

`import torchfromscratch` needs torch alone. Training, its pictures and its logs need more: pyproject.toml's extras.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ImportError):
    """A package of an extra is not installed; the message names both and the command that installs them."""


@contextmanager
def from_extra(extra: str) -> Iterator[None]:
    """Around imports of packages that `extra` installs.

        with from_extra("train"):
            import torchinfo

    Raises:
        MissingExtraError: if a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise MissingExtraError(
            f'this needs the package {package}: pip install "torchfromscratch[{extra}]"', name=package
        ) from error
