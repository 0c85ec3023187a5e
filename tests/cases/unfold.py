"""Windows written out as columns, and back: strides, dilations, padding, unbatched input."""

from tests.cases import Case, ModuleCase

CASES = [
    Case("unfold", lambda F, x: F.unfold(x, 2), ((2, 2, 3, 4),)),
    Case("unfold options", lambda F, x: F.unfold(x, (2, 3), (2, 1), (1, 2), (2, 1)), ((1, 2, 5, 4),)),
    Case("unfold unbatched", lambda F, x: F.unfold(x, 3, padding=1, stride=2), ((2, 4, 5),)),
    Case("unfold 1×1", lambda F, x: F.unfold(x, 1), ((2, 3, 2, 2),)),
    Case("fold", lambda F, x: F.fold(x, (3, 4), 2), ((2, 8, 6),)),
    Case("fold options", lambda F, x: F.fold(x, (5, 4), (2, 3), (2, 1), (1, 2), (2, 1)), ((1, 12, 18),)),
    Case("fold unbatched", lambda F, x: F.fold(x, (4, 5), 3, padding=1, stride=2), ((18, 6),)),
]

MODULE_CASES = [
    ModuleCase("Unfold", lambda nn: nn.Unfold((2, 3), padding=1, stride=2), ((2, 3, 4, 5),)),
    ModuleCase("Fold", lambda nn: nn.Fold((4, 5), 3, padding=1, stride=2), ((2, 18, 6),)),
]
