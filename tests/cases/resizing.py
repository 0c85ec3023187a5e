"""Resizing: every mode up and down, by size and by factor, aligned corners, and against aliasing."""

from tests import lacks
from tests.cases import EVERY_TEST, Case, ModuleCase

LACKS_LANCZOS = lacks.lanczos()

SMOOTH = {"linear": (2, 2, 5), "bilinear": (1, 2, 5, 4), "trilinear": (1, 2, 3, 4, 2), "bicubic": (1, 2, 5, 4)}
CASES = [
    Case("interpolate nearest 1d", lambda F, x: F.interpolate(x, 7), ((2, 2, 5),)),
    Case("interpolate nearest 2d", lambda F, x: F.interpolate(x, scale_factor=(1.7, 0.6)), ((1, 2, 5, 4),)),
    Case("interpolate nearest 3d", lambda F, x: F.interpolate(x, scale_factor=2), ((1, 2, 3, 2, 2),)),
    Case("interpolate nearest-exact", lambda F, x: F.interpolate(x, (3, 7), mode="nearest-exact"), ((1, 2, 5, 4),)),
    Case("interpolate area", lambda F, x: F.interpolate(x, scale_factor=0.7, mode="area"), ((1, 2, 5, 4),)),
    *[
        Case(f"interpolate {mode} {options}", lambda F, x, m=mode, o=options: F.interpolate(x, mode=m, **o), (shape,))
        for mode, shape in SMOOTH.items()
        for options in (
            {"scale_factor": 1.7},
            {"scale_factor": 0.6, "recompute_scale_factor": True},
            {"size": [7, 3, 5][: len(shape) - 2], "align_corners": True},
        )
    ],
    *[
        Case(
            f"interpolate {mode} antialias {size}",
            lambda F, x, m=mode, s=size: F.interpolate(x, s, mode=m, antialias=True),
            ((1, 2, 7, 5),),
            leave_out={EVERY_TEST: LACKS_LANCZOS} if mode == "lanczos" and LACKS_LANCZOS else {},
        )
        for mode in ("bilinear", "bicubic", "lanczos")
        for size in ((2, 3), (9, 4))
    ],
]

MODULE_CASES = [
    ModuleCase("Upsample", lambda nn: nn.Upsample(scale_factor=1.5, mode="bilinear"), ((2, 3, 4, 5),)),
    ModuleCase("UpsamplingNearest2d", lambda nn: nn.UpsamplingNearest2d(scale_factor=2), ((2, 3, 4, 5),)),
    ModuleCase("UpsamplingBilinear2d", lambda nn: nn.UpsamplingBilinear2d((3, 7)), ((2, 3, 4, 5),)),
]
