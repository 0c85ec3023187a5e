"""Padding: every mode in one to three dimensions, edges of different widths, and cropping."""

from tests.cases import Case, ModuleCase

CASES = [
    Case("pad constant", lambda F, x: F.pad(x, (1, 2, 0, 1), value=1.5), ((2, 3, 4),)),
    Case("pad and crop", lambda F, x: F.pad(x, (-1, 2, 1, -1)), ((2, 3, 4),)),
    Case("pad reflect 1d", lambda F, x: F.pad(x, (3, 1), "reflect"), ((2, 2, 4),)),
    Case("pad reflect 2d", lambda F, x: F.pad(x, (1, 2, 0, 2), "reflect"), ((2, 2, 3, 4),)),
    Case("pad reflect 3d", lambda F, x: F.pad(x, (1, 0, 0, 1, 1, 1), "reflect"), ((1, 2, 2, 3, 2),)),
    Case("pad reflect and crop", lambda F, x: F.pad(x, (-1, 2, 2, -1), "reflect"), ((2, 3, 4),)),
    Case("pad replicate 1d", lambda F, x: F.pad(x, (3, 5), "replicate"), ((2, 4),)),
    Case("pad replicate 2d", lambda F, x: F.pad(x, (1, 2, 0, 2), "replicate"), ((2, 2, 3, 4),)),
    Case("pad replicate 3d", lambda F, x: F.pad(x, (1, 0, 0, 1, 1, 1), "replicate"), ((1, 2, 2, 3, 2),)),
    Case("pad replicate and crop", lambda F, x: F.pad(x, (-1, 2, 2, -1), "replicate"), ((2, 3, 4),)),
    Case("pad circular 1d", lambda F, x: F.pad(x, (4, 1), "circular"), ((2, 2, 4),)),
    Case("pad circular 2d", lambda F, x: F.pad(x, (1, 2, 0, 2), "circular"), ((2, 2, 3, 4),)),
    Case("pad circular 3d", lambda F, x: F.pad(x, (1, 0, 0, 1, 1, 1), "circular"), ((1, 2, 2, 3, 2),)),
    Case("pad circular and crop", lambda F, x: F.pad(x, (-1, 2, 1, -1), "circular"), ((2, 3, 4),)),
]

MODULE_CASES = [
    ModuleCase("ConstantPad1d", lambda nn: nn.ConstantPad1d(2, 1.5), ((2, 3, 4),)),
    ModuleCase("ConstantPad2d", lambda nn: nn.ConstantPad2d((1, 2, 0, 1), -1.0), ((2, 3, 4, 5),)),
    ModuleCase("ConstantPad3d", lambda nn: nn.ConstantPad3d(1, 0.5), ((2, 2, 3, 3, 3),)),
    ModuleCase("ZeroPad1d", lambda nn: nn.ZeroPad1d(2), ((2, 3, 4),)),
    ModuleCase("ZeroPad2d", lambda nn: nn.ZeroPad2d((1, 2, 0, -1)), ((2, 3, 4, 5),)),
    ModuleCase("ZeroPad3d", lambda nn: nn.ZeroPad3d(1), ((2, 2, 3, 3, 3),)),
    ModuleCase("ReflectionPad1d", lambda nn: nn.ReflectionPad1d((2, 1)), ((2, 3, 4),)),
    ModuleCase("ReflectionPad2d", lambda nn: nn.ReflectionPad2d(2), ((2, 3, 4, 5),)),
    ModuleCase("ReflectionPad3d", lambda nn: nn.ReflectionPad3d(1), ((2, 2, 3, 3, 3),)),
    ModuleCase("ReplicationPad1d", lambda nn: nn.ReplicationPad1d((2, 5)), ((2, 3, 4),)),
    ModuleCase("ReplicationPad2d", lambda nn: nn.ReplicationPad2d(2), ((3, 4, 5),)),
    ModuleCase("ReplicationPad3d", lambda nn: nn.ReplicationPad3d(1), ((2, 2, 3, 3, 3),)),
    ModuleCase("CircularPad1d", lambda nn: nn.CircularPad1d((2, 1)), ((2, 3, 4),)),
    ModuleCase("CircularPad2d", lambda nn: nn.CircularPad2d(2), ((2, 3, 4, 5),)),
    ModuleCase("CircularPad3d", lambda nn: nn.CircularPad3d(1), ((2, 2, 3, 3, 3),)),
]
