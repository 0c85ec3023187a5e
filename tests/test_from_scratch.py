"""Inside from_scratch(), what torch calls a layer is ours: same numbers, and nothing built in."""

import threading

import pytest
import torch
import torch.nn.functional as F

import torchfromscratch
from tests.cases import all_cases, all_module_cases
from torchfromscratch import audit, from_scratch
from torchfromscratch import functional as ours

X = torch.linspace(-2, 2, 2 * 4 * 6 * 6, dtype=torch.float64).reshape(2, 4, 6, 6)
CASES = [case for case in all_cases()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_torch_functions_run_by_hand(case):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = case.call(ours, *case.inputs())
    with from_scratch(), audit(), torch.random.fork_rng():
        torch.manual_seed(0)
        output = case.call(F, *case.inputs())
        output.sum().backward()
    torch.testing.assert_close(output, expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", all_module_cases(), ids=lambda case: case.name)
def test_torch_modules_run_by_hand(case):
    pass
