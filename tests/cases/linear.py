"""Linear and Flatten."""

from tests.cases import Case, ModuleCase

CASES = [
    Case("linear", lambda F, x, w, b: F.linear(x, w, b), ((3, 4), (5, 4), (5,))),
    Case("linear without bias", lambda F, x, w: F.linear(x, w), ((2, 3, 4), (5, 4))),
    Case("linear of one vector", lambda F, x, w, b: F.linear(x, w, b), ((4,), (5, 4), (5,))),
]

MODULE_CASES = [
    ModuleCase("Linear", lambda nn: nn.Linear(4, 5), ((2, 3, 4),)),
    ModuleCase("Linear without bias", lambda nn: nn.Linear(4, 5, bias=False), ((3, 4),)),
    ModuleCase("Flatten", lambda nn: nn.Flatten(), ((2, 3, 4, 5),)),
    ModuleCase("Flatten some", lambda nn: nn.Flatten(0, 1), ((2, 3, 4),)),
]
