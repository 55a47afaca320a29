"""Attribution of features to models, and its history over checkpoints."""

from featdiff.attribution.alignments import (
    joint_trajectory,
    matched_trajectory,
    same_seed_index_trajectory,
    swap_trajectory,
)
from featdiff.attribution.examples import Examples, Passages, top_examples
from featdiff.attribution.latent_scaling import LatentScaling, ScaledTail, latent_scaling, latent_scalings, scaled_tails
from featdiff.attribution.matching import Matching, match, match_decoders, matched_jaccard
from featdiff.attribution.scores import Attribution, model_attribution_score, normalized_relative_norm
from featdiff.attribution.stability import ScoredCrosscoder, Stability, stability_of
from featdiff.attribution.swap import swap_specificity
from featdiff.attribution.trajectories import Trajectory

__all__ = [
    "Attribution",
    "Examples",
    "LatentScaling",
    "Matching",
    "Passages",
    "ScaledTail",
    "ScoredCrosscoder",
    "Stability",
    "Trajectory",
    "joint_trajectory",
    "latent_scaling",
    "latent_scalings",
    "match",
    "match_decoders",
    "matched_jaccard",
    "matched_trajectory",
    "model_attribution_score",
    "normalized_relative_norm",
    "same_seed_index_trajectory",
    "scaled_tails",
    "stability_of",
    "swap_specificity",
    "swap_trajectory",
    "top_examples",
]
