"""Latent scaling of the crosscoders of a run, and the tails that it leaves, from what `attribute` wrote."""

from featdiff.attribution import Attribution, LatentScaling, ScaledTail, scaled_tails
from featdiff.attribution.latent_scaling import Ratios
from featdiff.files import read_json
from featdiff.run.plan import Plan
from featdiff.run.scored import read_tensors

RATIOS = ("feature", "random", "other")
"""Directions of which nu was measured: of the feature itself, and of its two controls."""


def scaling_of(plan: Plan, name: str) -> LatentScaling:
    """Latent scaling of one crosscoder of the run, from `attribute`."""
    folder = plan.run.path("attribution")
    record, tensors = read_json(folder / f"{name}.json"), read_tensors(folder / f"{name}.safetensors", folder)
    ratios = {kind: Ratios(tensors[f"{kind}_nu_error"], tensors[f"{kind}_nu_reconstruction"]) for kind in RATIOS}
    return LatentScaling(
        models=tuple(record["models"]),
        space=record["scaling"]["space"],
        beta_error=tensors["beta_error"],
        beta_reconstruction=tensors["beta_reconstruction"],
        active=tensors["active"],
        tokens=record["scaling"]["tokens"],
        min_active=record["scaling"]["min_active"],
        **ratios,
    )


def scaled_tails_of(plan: Plan, attribution: Attribution, scaling: LatentScaling, model: str) -> tuple[ScaledTail, ...]:
    """The tails of one model before and after latent scaling, by the cuts of the study."""
    settings = plan.study.attribution
    return scaled_tails(
        attribution,
        scaling,
        model,
        settings.tails,
        max_error=settings.scaling.max_error,
        max_reconstruction=settings.scaling.max_reconstruction,
    )
