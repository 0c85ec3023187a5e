"""Every case of every layer, with all that has a kernel in Triton computed by it: against torch, and derived twice."""

import pytest
from torch.autograd import gradcheck, gradgradcheck

from tests import subjects as harness
from tests.subjects import Subject, answers, assert_equal, repeatable

pytestmark = pytest.mark.slow


@pytest.fixture(params=harness.subjects(), ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    """Every case, unless it leaves the test out."""
    harness.skip_if_left_out(request, request.param.leave_out)
    return request.param


def test_values_and_gradients(subject: Subject) -> None:
    if subject.name in ("dropout", "attention dropout"):
        pytest.skip("kernels draw other random numbers than torch: test_layers.py compares them given the mask")
    inputs = subject.inputs()
    assert_equal(answers(subject.ours, inputs), answers(subject.theirs, inputs), subject.precision)


def test_first_derivatives(subject: Subject) -> None:
    assert gradcheck(repeatable(subject.ours), subject.inputs(), fast_mode=True)


def test_second_derivatives(subject: Subject) -> None:
    assert gradgradcheck(repeatable(subject.ours), subject.inputs(), fast_mode=True)
