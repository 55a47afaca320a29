"""featdiff shows, feature by feature, what post-training changed in a language model, and what makes it generalize.

The public names, in reading order. They are imported when first used, so that `featdiff --help` answers without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featdiff import attribution, causal, crosscoder
    from featdiff.activations.stream import Activations, ActivationStream
    from featdiff.attribution.scores import Attribution, model_attribution_score, normalized_relative_norm
    from featdiff.attribution.trajectories import Trajectory
    from featdiff.config.crosscoder import BatchTopK, JumpReLU, ReLU
    from featdiff.config.study import Study
    from featdiff.config.study_file import read_study
    from featdiff.crosscoder.loss import Loss
    from featdiff.crosscoder.model import Crosscoder
    from featdiff.evaluation.outcomes import Outcomes
    from featdiff.intervention.edits import Edit
    from featdiff.intervention.effects import Effect
    from featdiff.models.loading import Lineup
    from featdiff.selection.scores import Selection

_HOMES = {
    "Study": "study",
    "read_study": "study_file",
    "Lineup": "activations.models",
    "Activations": "activations.stream",
    "ActivationStream": "activations.stream",
    "Crosscoder": "crosscoder.model",
    "Loss": "crosscoder.loss",
    "ReLU": "config.crosscoder",
    "BatchTopK": "config.crosscoder",
    "JumpReLU": "config.crosscoder",
    "Attribution": "attribution.scores",
    "model_attribution_score": "attribution.scores",
    "normalized_relative_norm": "attribution.scores",
    "Trajectory": "attribution.dynamics",
    "Outcomes": "causal.outcomes",
    "Selection": "causal.selection",
    "Edit": "causal.intervention",
    "Effect": "causal.effects",
}

__all__ = [
    "ActivationStream",
    "Activations",
    "Attribution",
    "BatchTopK",
    "Crosscoder",
    "Edit",
    "Effect",
    "JumpReLU",
    "Lineup",
    "Loss",
    "Outcomes",
    "ReLU",
    "Selection",
    "Study",
    "Trajectory",
    "attribution",
    "causal",
    "crosscoder",
    "model_attribution_score",
    "normalized_relative_norm",
    "read_study",
]


def __getattr__(name: str) -> object:
    if name in ("attribution", "causal", "crosscoder"):
        return import_module(f"featdiff.{name}")
    if name in _HOMES:
        return getattr(import_module(f"featdiff.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'featdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
