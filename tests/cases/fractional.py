"""Fractional max pooling: by size and by ratio, of windows drawn and given."""

from tests.cases import Case, ModuleCase

DRAWS = "maps over forward mode, in which torch draws no random numbers"
RANDOM = {"first_derivatives": f"gradcheck {DRAWS}", "jacobian_and_hessian": f"torch.func.hessian {DRAWS}"}
NO_META = {"meta": "torch: no meta kernel for the backward"}

CASES = [
    Case(
        "fractional_max_pool2d",
        lambda F, x: F.fractional_max_pool2d(x, (2, 3), (3, 2)),
        ((2, 3, 6, 5),),
        leave_out=RANDOM,
    ),
    Case(
        "fractional_max_pool2d ratio",
        lambda F, x: F.fractional_max_pool2d(x, 2, None, (0.5, 0.7)),
        ((2, 7, 5),),
        leave_out=RANDOM,
    ),
    Case(
        "fractional_max_pool2d_with_indices",
        lambda F, x: F.fractional_max_pool2d_with_indices(x, 2, 3),
        ((2, 3, 6, 5),),
        leave_out=RANDOM,
    ),
    Case(
        "fractional_max_pool3d",
        lambda F, x: F.fractional_max_pool3d(x, 2, (2, 3, 1)),
        ((2, 2, 4, 5, 3),),
        leave_out=RANDOM | NO_META,
    ),
    Case(
        "fractional_max_pool3d_with_indices",
        lambda F, x: F.fractional_max_pool3d_with_indices(x, 2, None, 0.6),
        ((2, 4, 5, 4),),
        leave_out=RANDOM | NO_META,
    ),
]

MODULE_CASES = [
    ModuleCase("FractionalMaxPool2d", lambda nn: nn.FractionalMaxPool2d(2, output_ratio=(0.5, 0.6)), ((2, 3, 6, 5),)),
    ModuleCase(
        "FractionalMaxPool3d", lambda nn: nn.FractionalMaxPool3d(2, (2, 3, 1), return_indices=True), ((2, 2, 4, 5, 3),)
    ),
]
