"""Sampling at the places of a grid: every mode, padding and alignment, inside and outside, of pictures and volumes."""

from tests.cases import Case

PICTURES, PLACES = (2, 3, 4, 5), (2, 3, 2, 2)

CASES = [
    *[
        Case(
            f"grid_sample {mode} {padding}{' aligned' * aligned}",
            lambda F, x, g, m=mode, p=padding, a=aligned: F.grid_sample(x, g, m, p, a),
            (PICTURES, PLACES),
            low=-1.6,
            high=1.6,
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for aligned in (False, True)
        if mode == "bilinear" or aligned == (padding == "border")
    ],
    *[
        Case(
            f"grid_sample 3d {mode} {padding}",
            lambda F, x, g, m=mode, p=padding: F.grid_sample(x, g, m, p, p == "border"),
            ((2, 2, 3, 4, 2), (2, 2, 1, 3, 3)),
            low=-1.6,
            high=1.6,
        )
        for mode, padding in (("bilinear", "zeros"), ("bilinear", "border"), ("nearest", "reflection"))
    ],
    Case("affine_grid", lambda F, t: F.affine_grid(t, (2, 3, 4, 5), align_corners=False), ((2, 2, 3),)),
    Case("affine_grid 3d aligned", lambda F, t: F.affine_grid(t, (2, 3, 4, 5, 2), align_corners=True), ((2, 3, 4),)),
]
