"""featdiff shows, feature by feature, what post-training changed in a language model, and what makes it generalize.

    import featdiff as fd

    models = fd.load_models({"base": "path/to/base", "sft": "path/to/sft", "rl": "path/to/rl"})
    tokens = fd.tokenize(texts, models.tokenizer)
    crosscoder = fd.train_crosscoder(models, tokens, features=4096)
    fd.Attribution.of(crosscoder).hist("rl")

The public names stand in `__all__` in reading order. Each is imported when it is first used, so that `import featdiff`
and `featdiff --help` answer without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featdiff import attribution, crosscoder, verify
    from featdiff.activations.stream import Activations, ActivationStream
    from featdiff.api.effects import Intervention, edited, intervene, select
    from featdiff.api.evaluation import Evaluation, Items, evaluate
    from featdiff.api.fit import quality, top_contexts
    from featdiff.api.models import load_models
    from featdiff.api.training import train_crosscoder
    from featdiff.attribution.latent_scaling import LatentScaling, latent_scaling
    from featdiff.attribution.matching import Matching, match
    from featdiff.attribution.scores import Attribution, model_attribution_score, normalized_relative_norm
    from featdiff.attribution.trajectories import Trajectory
    from featdiff.config.crosscoder import BatchTopK, Design, JumpReLU, ReLU
    from featdiff.config.study import Study
    from featdiff.config.study_file import read_study
    from featdiff.crosscoder.loss import Loss
    from featdiff.crosscoder.model import Crosscoder
    from featdiff.data.corpus import Corpus, tokenize
    from featdiff.evaluation.outcomes import Outcomes
    from featdiff.files import load as load_result
    from featdiff.files import save as save_result
    from featdiff.intervention.edited_model import EditedModel
    from featdiff.intervention.edits import Edit
    from featdiff.intervention.effects import Effect
    from featdiff.models.loading import Lineup
    from featdiff.run.plan import Plan
    from featdiff.selection.scores import Selection
    from featdiff.workflow.runner import run_study

__all__ = [  # noqa: RUF022 -- in reading order
    # models and text
    "load_models",
    "Lineup",
    "tokenize",
    "Corpus",
    "Activations",
    "ActivationStream",
    # the dictionary
    "train_crosscoder",
    "Crosscoder",
    "ReLU",
    "BatchTopK",
    "JumpReLU",
    "Design",
    "Loss",
    "quality",
    # whose features they are
    "Attribution",
    "model_attribution_score",
    "normalized_relative_norm",
    "latent_scaling",
    "LatentScaling",
    "match",
    "Matching",
    "Trajectory",
    "top_contexts",
    # where the models differ in what they can do
    "evaluate",
    "Evaluation",
    "Outcomes",
    "Items",
    # which features make the difference
    "select",
    "Selection",
    "intervene",
    "Intervention",
    "Effect",
    "Edit",
    "EditedModel",
    "edited",
    # whole studies
    "Study",
    "read_study",
    "run_study",
    "Plan",
    "load_result",
    "save_result",
    # modules
    "attribution",
    "crosscoder",
    "verify",
]

_MODULES = ("attribution", "crosscoder", "verify")
_HOMES = {
    "Activations": "activations.stream",
    "ActivationStream": "activations.stream",
    "Intervention": "api.effects",
    "edited": "api.effects",
    "intervene": "api.effects",
    "select": "api.effects",
    "Evaluation": "api.evaluation",
    "Items": "api.evaluation",
    "evaluate": "api.evaluation",
    "quality": "api.fit",
    "top_contexts": "api.fit",
    "load_models": "api.models",
    "train_crosscoder": "api.training",
    "LatentScaling": "attribution.latent_scaling",
    "latent_scaling": "attribution.latent_scaling",
    "Matching": "attribution.matching",
    "match": "attribution.matching",
    "Attribution": "attribution.scores",
    "model_attribution_score": "attribution.scores",
    "normalized_relative_norm": "attribution.scores",
    "Trajectory": "attribution.trajectories",
    "BatchTopK": "config.crosscoder",
    "Design": "config.crosscoder",
    "JumpReLU": "config.crosscoder",
    "ReLU": "config.crosscoder",
    "Study": "config.study",
    "read_study": "config.study_file",
    "Loss": "crosscoder.loss",
    "Crosscoder": "crosscoder.model",
    "Corpus": "data.corpus",
    "tokenize": "data.corpus",
    "Outcomes": "evaluation.outcomes",
    "EditedModel": "intervention.edited_model",
    "Edit": "intervention.edits",
    "Effect": "intervention.effects",
    "Lineup": "models.loading",
    "Plan": "run.plan",
    "Selection": "selection.scores",
    "run_study": "workflow.runner",
}
"""Where each name lies: the imports above, as `__getattr__` makes them."""
_RENAMED = {"load_result": ("files", "load"), "save_result": ("files", "save")}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"featdiff.{name}")
    if name in _RENAMED:
        home, own = _RENAMED[name]
        return getattr(import_module(f"featdiff.{home}"), own)
    if name in _HOMES:
        return getattr(import_module(f"featdiff.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'featdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
