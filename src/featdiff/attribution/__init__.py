"""Who owns a feature, and how that came about."""

from featdiff.attribution.dynamics import Trajectory, trajectory
from featdiff.attribution.matching import Matching, match, match_decoders, matched_jaccard
from featdiff.attribution.scaling import LatentScaling, ScaledTail, latent_scaling, latent_scalings, scaled_tails
from featdiff.attribution.scores import Attribution, model_attribution_score, normalized_relative_norm

__all__ = [
    "Attribution",
    "LatentScaling",
    "Matching",
    "ScaledTail",
    "Trajectory",
    "latent_scaling",
    "latent_scalings",
    "match",
    "match_decoders",
    "matched_jaccard",
    "model_attribution_score",
    "normalized_relative_norm",
    "scaled_tails",
    "trajectory",
]
