"""Distance modules: torch.nn's, computed by hand."""

from __future__ import annotations

import torch.nn
from torch import Tensor

from torchfromscratch import functional as F

__all__ = ["CosineSimilarity", "PairwiseDistance"]


class CosineSimilarity(torch.nn.CosineSimilarity):
    """The cosine of the angle between two vectors: torch.nn.CosineSimilarity by hand."""

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(torch.nn.PairwiseDistance):
    """The distance between two vectors: torch.nn.PairwiseDistance by hand."""

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
