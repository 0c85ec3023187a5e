"""Linear and Flatten."""

from tests.cases import Case, ModuleCase

CASES = [
    Case("linear", lambda F, x, w, b: F.linear(x, w, b), ((3, 4), (5, 4), (5,))),
    Case("linear without bias", lambda F, x, w: F.linear(x, w), ((2, 3, 4), (5, 4))),
    Case("linear of one vector", lambda F, x, w, b: F.linear(x, w, b), ((4,), (5, 4), (5,))),
    Case("bilinear", lambda F, x, y, w, b: F.bilinear(x, y, w, b), ((3, 4), (3, 2), (5, 4, 2), (5,))),
    Case("bilinear without bias", lambda F, x, y, w: F.bilinear(x, y, w), ((2, 3, 4), (2, 3, 2), (5, 4, 2))),
    Case("bilinear of two vectors", lambda F, x, y, w: F.bilinear(x, y, w), ((4,), (2,), (5, 4, 2))),
]

MODULE_CASES = [
    ModuleCase("Linear", lambda nn: nn.Linear(4, 5), ((2, 3, 4),)),
    ModuleCase("Linear without bias", lambda nn: nn.Linear(4, 5, bias=False), ((3, 4),)),
    ModuleCase("Bilinear", lambda nn: nn.Bilinear(4, 2, 5), ((3, 4), (3, 2))),
    ModuleCase("Flatten", lambda nn: nn.Flatten(), ((2, 3, 4, 5),)),
    ModuleCase("Flatten some", lambda nn: nn.Flatten(0, 1), ((2, 3, 4),)),
]
