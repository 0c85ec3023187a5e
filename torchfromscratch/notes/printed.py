"""The numbers that the lecture notes print, as they print them, mistakes included."""

from __future__ import annotations

import torch
from torch import Tensor


def matrix(text: str) -> Tensor:
    """A matrix from its printed rows."""
    return torch.tensor([[float(value) for value in row.split()] for row in text.strip().splitlines()])


# Note 2, figure of section 2.2: a filter for each stroke of an X, and what they find in the picture.
DIAGONAL_MAP = matrix("""
0.77 -0.11 0.11 0.33 0.55 -0.11 0.33
-0.11 1.00 -0.11 0.33 -0.11 0.11 -0.11
0.11 -0.11 1.00 -0.33 0.11 -0.11 0.55
0.33 0.33 -0.33 0.55 -0.33 0.33 0.33
0.55 -0.11 0.11 -0.33 1.00 -0.11 0.11
-0.11 0.11 -0.11 0.33 -0.11 1.00 -0.11
0.33 -0.11 0.55 0.33 0.11 -0.11 0.77
""")
DIAGONAL_MAP_AFTER_RELU = matrix("""
0.77 0 0.11 0.33 0.55 0 0.33
0 1.00 0 0.33 0 0.11 0
0.11 0 1.00 0 0.11 0 0.55
0.33 0.33 0 0.55 0 0.33 0.33
0.55 0 0.11 0 1.00 0 0.11
0 0.11 0 0.33 0 1.00 0
0.33 0 0.55 0.33 0.11 0 0.77
""")
POOLED_DIAGONAL_MAP = matrix("""
1.00 0.33 0.55 0.33
0.33 1.00 0.33 0.55
0.55 0.33 1.00 0.11
""")
X_FILTERS = {
    "diagonal": matrix("1 -1 -1\n-1 1 -1\n-1 -1 1"),
    "cross": matrix("1 -1 1\n-1 1 -1\n-1 -1 1"),
    "antidiagonal": matrix("-1 1 1\n1 -1 1\n1 1 -1"),
}

# Note 2, figure 2: the 5×5 picture of the animations, with its border of zeros.
PADDED_PICTURE = matrix("""
0 0 0 0 0 0 0
0 1 1 1 0 0 0
0 0 1 1 1 0 0
0 0 0 1 1 1 0
0 0 0 1 1 0 0
0 0 1 1 0 0 0
0 0 0 0 0 0 0
""")

# Note 2, section 1.2: nine pixels (R, G, B), and the three matrices that they are split into.
PIXELS = torch.tensor(
    [
        [(100, 100, 50), (101, 112, 3), (131, 20, 80)],
        [(150, 210, 130), (10, 120, 130), (111, 120, 130)],
        [(10, 260, 30), (200, 20, 30), (100, 20, 3)],
    ]
)
PIXEL_CHANNELS = torch.tensor(
    [
        [[100, 101, 131], [150, 10, 111], [10, 200, 100]],
        [[100, 112, 20], [210, 120, 120], [260, 20, 20]],
        [[50, 3, 80], [130, 130, 130], [30, 30, 3]],
    ]
)
TURQUOISE = (0, 233, 256)

# Note 5, "Convolution for colour images": three channels with their border of zeros.
VOLUME = torch.stack(
    [
        matrix("""
0 0 0 0 0 0 0
0 0 0 1 0 2 0
0 1 0 2 0 1 0
0 1 0 2 2 0 0
0 2 0 0 2 0 0
0 2 1 2 2 0 0
0 0 0 0 0 0 0
"""),
        matrix("""
0 0 0 0 0 0 0
0 2 1 2 1 1 0
0 2 1 2 0 1 0
0 0 2 1 0 1 0
0 1 2 2 2 2 0
0 0 1 2 0 1 0
0 0 0 0 0 0 0
"""),
        matrix("""
0 0 0 0 0 0 0
0 2 1 2 0 2 0
0 1 0 0 1 0 0
0 0 1 0 0 0 0
0 1 0 2 1 0 0
0 2 2 1 1 1 0
0 0 0 0 0 0 0
"""),
    ]
)
# Of the first filter's third slice the table has lost all but the last row.
FIRST_FILTER = torch.stack(
    [matrix("-1 0 1\n0 0 1\n1 -1 1"), matrix("-1 0 1\n1 -1 1\n0 1 0"), matrix("nan nan nan\nnan nan nan\n0 -1 0")]
)
SECOND_FILTER = torch.stack(
    [matrix("0 1 -1\n0 -1 0\n0 -1 1"), matrix("-1 0 0\n1 -1 0\n1 -1 0"), matrix("-1 1 -1\n0 -1 -1\n1 0 0")]
)
FILTER_BIASES = torch.tensor([1.0, 0.0])
VOLUME_OUTPUT = torch.stack([matrix("2 3 3\n3 7 3\n8 10 -3"), matrix("-8 -8 -3\n-3 1 0\n-3 -8 -5")])

# Note 1, section 5.2.1, and note 5, "Fully connected layer".
POOLING_WINDOW = matrix("1 3\n4 2")
POOLING_MASK = matrix("0 0\n1 0")
FEATURE_MAP = matrix("1 1 0\n4 2 1\n0 2 1")
FLATTENED = torch.tensor([1.0, 1, 0, 4, 2, 1, 0, 2, 1])
