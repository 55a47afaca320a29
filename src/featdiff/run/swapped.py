"""Specificity of a run's features with another model in the tuned one's place, on held-out tokens."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from featdiff.activations.stream import Calibration, collect
from featdiff.attribution.stability import ScoredCrosscoder
from featdiff.attribution.swap import swap_specificity
from featdiff.config.study import BASE
from featdiff.crosscoder import Crosscoder
from featdiff.models.loading import Lineup
from featdiff.run.held_out import calibration_of, held_out_activations, held_out_corpus
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan

COMPARED = "compared"
"""Name of the model that takes the tuned model's place."""


def checkpoint_specificity(
    plan: Plan, seeds: Sequence[ScoredCrosscoder], checkpoints: Sequence[str]
) -> list[Float[Tensor, "checkpoints features"]]:
    """Specificity of each seed's features with every checkpoint, a model of the study, in the tuned model's place."""
    study = plan.study
    lineup = load_lineup(plan, tuple(dict.fromkeys((*seeds[0].crosscoder.models, *checkpoints))))
    return swap_specificity(
        [one.crosscoder for one in seeds],
        held_out_activations(plan, lineup, study.dynamics.tokens),
        checkpoints,
        p=study.attribution.norm_p,
        space=study.attribution.space,
        min_active=study.dynamics.min_active,
    )


def specificity_in_place(plan: Plan, tuned: str, path: str) -> Float[Tensor, " features"]:
    """Specificity of the features of a tuned model's pair crosscoder with the model at `path` in its place; the sinks
    and the scale of that model are the tuned one's. NaN for features that cannot be measured."""
    study, pair = plan.study, plan.pair(tuned)
    assert pair is not None, "a tuned model with a crosscoder of its own and the base"
    settings, known = study.lineup, calibration_of(plan, (BASE, tuned))
    lineup = Lineup.load(
        {BASE: plan.paths[BASE], tuned: plan.paths[tuned], COMPARED: path},
        layer=settings.layer,
        dtype=settings.dtype,
        device=settings.device,
        turns=settings.turns,
        attention=settings.attention,
        trust_remote_code=settings.trust_remote_code,
    )
    columns = [0, 1, 1]
    calibration = Calibration(lineup.names, known.largest_norm[columns], known.scale[columns])
    (found,) = swap_specificity(
        [Crosscoder.load(plan.run.path("crosscoders", pair)).to(settings.device)],
        collect(lineup, held_out_corpus(plan), calibration, study.activations, study.drift.tokens),
        [COMPARED],
        p=study.attribution.norm_p,
        space=study.attribution.space,
        min_active=study.drift.min_active,
    )
    return found[0]
