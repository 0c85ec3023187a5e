"""Distances, cosines and lengths, of every exponent."""

import math

from tests.cases import Case, ModuleCase

NO_META = {"meta": "torch has no kernel for it", "empty_batch": "torch crashes in the gradient of no rows"}
PAIR = ((3, 4), (3, 4))
STRAIGHT = dict.fromkeys(
    ["first_derivatives", "second_derivatives", "every_element_of_the_derivatives"],
    "lengths below the bound are differentiated as if there were none, as in torch",
)

CASES = [
    Case("normalize", lambda F, x: F.normalize(x), ((3, 4),)),
    Case("normalize 1", lambda F, x: F.normalize(x, 1.0, -1), ((2, 3, 2),)),
    Case("normalize 3 bounded", lambda F, x: F.normalize(x, 3.0, 0, eps=2.0), ((3, 4),)),
    Case("normalize ∞ two dimensions", lambda F, x: F.normalize(x, math.inf, (0, 2)), ((2, 3, 2),)),
    Case("cosine_similarity", lambda F, x, y: F.cosine_similarity(x, y), PAIR),
    Case("cosine_similarity broadcast", lambda F, x, y: F.cosine_similarity(x, y, -1), ((2, 1, 4), (3, 4))),
    Case("cosine_similarity bounded", lambda F, x, y: F.cosine_similarity(x, y, 0, eps=1.5), PAIR, leave_out=STRAIGHT),
    Case("pairwise_distance", lambda F, x, y: F.pairwise_distance(x, y), PAIR),
    Case("pairwise_distance 1", lambda F, x, y: F.pairwise_distance(x, y, 1.0, keepdim=True), ((3, 4), (4,))),
    Case("pairwise_distance 0.5", lambda F, x, y: F.pairwise_distance(x, y, 0.5), PAIR),
    Case("pairwise_distance ∞", lambda F, x, y: F.pairwise_distance(x, y, math.inf), PAIR),
    Case("pdist", lambda F, x: F.pdist(x), ((4, 3),), leave_out=NO_META),
    Case("pdist 1", lambda F, x: F.pdist(x, 1), ((4, 3),), leave_out=NO_META),
    Case("pdist 3", lambda F, x: F.pdist(x, 3.0), ((4, 3),), leave_out=NO_META),
    Case("pdist ∞", lambda F, x: F.pdist(x, math.inf), ((4, 3),), leave_out=NO_META),
]

MODULE_CASES = [
    ModuleCase("CosineSimilarity", lambda nn: nn.CosineSimilarity(dim=1), ((2, 3, 4), (2, 3, 4))),
    ModuleCase("PairwiseDistance", lambda nn: nn.PairwiseDistance(p=3, keepdim=True), PAIR),
]
