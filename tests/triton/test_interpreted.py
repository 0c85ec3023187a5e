"""The tests in `interpreted`, each file in a process of its own: triton asks once whether to interpret."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from torch.torch_version import TorchVersion

from torchfromscratch.kernels.triton import LEAST_VERSION

ROOT = Path(__file__).parents[2]
FILES = sorted((Path(__file__).parent / "interpreted").glob("test_*.py"))
AT_LENGTH = [file for file in FILES if "pytest.mark.slow" in file.read_text(encoding="utf-8")]
BY_DEFAULT = [file for file in FILES if "\npytestmark = pytest.mark.slow" not in file.read_text(encoding="utf-8")]

triton = pytest.importorskip(
    "triton", minversion=LEAST_VERSION, reason="the interpreter is Triton's, which not every build of torch brings"
)
if TorchVersion(triton.__version__) < "3.7" and TorchVersion(numpy.__version__) >= "2.4":
    pytest.skip(
        "Triton's interpreter before 3.7 makes numbers of arrays of one element, as NumPy does up to 2.3",
        allow_module_level=True,
    )


def run(file: Path, marks: str) -> None:
    """Runs a file's tests, of which there are some; what fails there is told here."""
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-x", "-m", marks, str(file)]
    variables = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-8000:] + finished.stderr[-2000:]


@pytest.mark.parametrize("file", BY_DEFAULT, ids=lambda file: file.stem)
def test_in_the_interpreter(file: Path) -> None:
    run(file, "not slow")


@pytest.mark.slow
@pytest.mark.parametrize("file", AT_LENGTH, ids=lambda file: file.stem)
def test_in_the_interpreter_at_length(file: Path) -> None:
    run(file, "slow")
