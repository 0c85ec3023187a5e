"""What all tests share: the devices that there are, and one thread, which small tensors are fastest on."""

import hypothesis
import pytest
import torch

# Random examples, but the same ones in every run.
hypothesis.settings.register_profile("reproducible", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("reproducible")

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Every device of this machine that the layers are made for."""
    return request.param


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
