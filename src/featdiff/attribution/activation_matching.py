"""Matching of the features of two crosscoders by the correlation of their codes.

Decoders of different layers lie in different spaces, so their directions say nothing about each other. What two
features do on the same tokens does: their similarity here is the correlation of their codes, which is the cosine of the
codes less their means. It takes the place of the cosine of decoders in `matching`; everything else is as there.
"""

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from featdiff.attribution.matching import Matching, match_decoders


def match_codes(
    a: Float[Tensor, "tokens features"],
    b: Float[Tensor, "tokens others"],
    acceptance: float = 0.7,
    *,
    alive: tuple[Bool[Tensor, " features"], Bool[Tensor, " others"]] | None = None,
) -> Matching:
    """Pair features by the correlation of their codes on the same tokens; one that is constant there takes no part."""
    return match_decoders(_centred(a), _centred(b), acceptance, alive=alive)


def _centred(codes: Float[Tensor, "tokens features"]) -> Float[Tensor, "features 1 tokens"]:
    """Codes less their mean, one row a feature; zero, to the bit, for a feature that never changes."""
    varies = (codes != codes[:1]).any(dim=0)
    return rearrange((codes - codes.mean(dim=0)) * varies, "tokens features -> features 1 tokens")
