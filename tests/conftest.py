"""What all tests share: the devices that there are, one thread, which small tensors are fastest on, and no TF32."""

import hypothesis
import pytest
import torch

# Random examples, but the same ones in every run.
hypothesis.settings.register_profile("reproducible", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("reproducible")

# On a GPU torch.nn's convolutions of float32 round their factors to 10 bits by default, and so do ours: tests that
# compare numbers to the last bits want neither. torch's own tests, which some import, forbid to set the flag later.
torch.backends.cudnn.allow_tf32 = False

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Every device of this machine that the layers are made for."""
    return request.param


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
