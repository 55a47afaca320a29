"""Who owns a feature, and how that came about."""

from featdiff.attribution.dynamics import Trajectory, trajectory
from featdiff.attribution.scores import Attribution, model_attribution_score, normalized_relative_norm

__all__ = ["Attribution", "Trajectory", "model_attribution_score", "normalized_relative_norm", "trajectory"]
