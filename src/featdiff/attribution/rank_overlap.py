"""Rank-biased overlap of two rankings (Webber, Moffat & Zobel 2010): agreement at every depth, the top weighing most.

    RBO = (1 - p) sum_d p^(d-1) A_d,    A_d = |S_1..d and L_1..d| / d

Rankings end somewhere. The extrapolated form (their Eq. 32) assumes that they would go on to agree as they do at their
end: S, the shorter one, at the rate X_s / s that it has reached; from where L ends as well, both at the last agreement.
It is 1 for equal rankings and 0 for rankings that share nothing, and does not need them to hold the same items or as
many.
"""

import math
from collections.abc import Sequence

REST = 1e-4
"""Weight of all ranks beyond the depth to which a ranking is read."""


def rank_biased_overlap(one: Sequence[int], other: Sequence[int], p: float = 0.9) -> float:
    """Extrapolated RBO of two rankings, best first; NaN where both are empty, 0 where one is.

    Raises ValueError for a persistence outside (0, 1), or a ranking that names something twice.
    """
    if not 0 < p < 1:
        raise ValueError(f"the persistence is {p:g}; give one between 0 and 1, for example 0.9")
    if len(set(one)) != len(one) or len(set(other)) != len(other):
        raise ValueError("a ranking names something twice; give every item once")
    shorter, longer = sorted((one, other), key=len)
    if not longer:
        return math.nan
    if not shorter:
        return 0.0
    shared, ends = _shared(shorter, longer), len(shorter)
    at_end, last = shared[ends - 1], shared[-1]
    total = 0.0
    for depth, common in enumerate(shared, 1):
        beyond = at_end * (depth - ends) / ends if depth > ends else 0.0
        total += (common + beyond) / depth * p**depth
    rest = (last - at_end) / len(longer) + at_end / ends
    return (1 - p) / p * total + rest * p ** len(longer)


def depth_of(p: float) -> int:
    """Ranks that hold all but `REST` of the weight."""
    return math.ceil(math.log(REST) / math.log(p))


def _shared(shorter: Sequence[int], longer: Sequence[int]) -> list[int]:
    """At each depth of the longer ranking, how many items both have named by then."""
    counts, common = list[int](), 0
    seen_short, seen_long = set[int](), set[int]()
    for depth, item in enumerate(longer):
        seen_long.add(item)
        common += item in seen_short
        if depth < len(shorter):
            seen_short.add(shorter[depth])
            common += shorter[depth] in seen_long
        counts.append(common)
    return counts
