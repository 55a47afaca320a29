"""Who owns the features of a crosscoder, and what latent scaling says of it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor

from featdiff.analyses.ownership.result import (
    LARGEST_NU,
    RATIOS,
    ModelOwnership,
    NuHistogram,
    Ownership,
    ScalingRecord,
    Specificity,
)
from featdiff.attribution import Attribution, LatentScaling, scaled_tails
from featdiff.attribution.latent_scaling import Ratios
from featdiff.config.study import AttributionSettings
from featdiff.files import save

SCORE_BINS, NU_BINS = 50, 30


def write_ownership(
    attribution: Attribution, scaling: LatentScaling, settings: AttributionSettings, place: Path
) -> Ownership:
    """Count the features of every model in one crosscoder.

    Args:
        attribution: scores of its features.
        scaling: what latent scaling has measured of them.
        settings: the cuts of the tails, and when a feature counts as absent.
        place: path without ending; `.json` gets the counts, `.safetensors` the scores (mas and mas_l2 [features
            models], cosine [features models models], density and alive [features]) and all of the latent scaling.
    """
    result = ownership(attribution, scaling, settings)
    tensors = {key: getattr(attribution, key) for key in ("mas", "mas_l2", "cosine", "density", "alive")}
    tensors |= {key: getattr(scaling, key) for key in ("beta_error", "beta_reconstruction", "active")}
    for kind in RATIOS:
        ratios: Ratios = getattr(scaling, kind)
        tensors |= {f"{kind}_nu_error": ratios.error, f"{kind}_nu_reconstruction": ratios.reconstruction}
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(contiguous, place.with_name(f"{place.name}.safetensors"))
    save(result, place.with_name(f"{place.name}.json"))
    return result


def ownership(attribution: Attribution, scaling: LatentScaling, settings: AttributionSettings) -> Ownership:
    """The counts of one crosscoder."""
    rule = settings.scaling
    return Ownership(
        models=attribution.models,
        features=len(attribution.alive),
        alive=int(attribution.alive.sum()),
        of={model: _of_model(attribution, scaling, model, settings) for model in attribution.models},
        scaling=ScalingRecord(
            space=scaling.space,
            tokens=scaling.tokens,
            min_active=scaling.min_active,
            max_error=rule.max_error,
            max_reconstruction=rule.max_reconstruction,
            uncounted=scaling.uncounted,
        ),
    )


def specificity(attribution: Attribution, model: str, cuts: Sequence[float] = (0.8, 0.9)) -> Specificity:
    """The histogram of one model's scores over alive features, and how many lie above each cut."""
    scores = attribution[model][attribution.alive].float().cpu()
    l2 = attribution.mas_l2[:, attribution.models.index(model)][attribution.alive]
    return Specificity(
        counts=tuple(torch.histc(scores, bins=SCORE_BINS, min=0, max=1).long().tolist()),
        tails={f"{cut:g}": int((scores > cut).sum()) for cut in cuts},
        tails_l2={f"{cut:g}": int((l2 > cut).sum()) for cut in cuts},
    )


def nu_histogram(attribution: Attribution, scaling: LatentScaling, model: str, cut: float) -> NuHistogram:
    """The largest |nu_eps| over the other models, of the features of one model above a cut and of all others."""
    alive, reference = attribution.alive.cpu(), scaling.index(model)
    beyond = alive & (attribution[model].cpu() > cut)
    return NuHistogram(
        beyond=_counts(scaling.feature, reference, beyond),
        others=_counts(scaling.feature, reference, alive & ~beyond),
        control=_middle(scaling.random, reference, beyond),
    )


def _of_model(
    attribution: Attribution, scaling: LatentScaling, model: str, settings: AttributionSettings
) -> ModelOwnership:
    cuts, rule = settings.tails, settings.scaling
    return ModelOwnership(
        specificity=specificity(attribution, model, cuts),
        scaled=scaled_tails(
            attribution,
            scaling,
            model,
            cuts,
            max_error=rule.max_error,
            max_reconstruction=rule.max_reconstruction,
        ),
        nu=nu_histogram(attribution, scaling, model, min(cuts)) if cuts else None,
    )


def _elsewhere(ratios: Ratios, reference: int, of: Bool[Tensor, " features"]) -> Float[Tensor, " measured"]:
    error, reconstruction = ratios.elsewhere(reference)
    return error[of & ~error.isnan() & ~reconstruction.isnan()]


def _counts(ratios: Ratios, reference: int, of: Bool[Tensor, " features"]) -> tuple[int, ...]:
    error = _elsewhere(ratios, reference, of).clamp(max=LARGEST_NU)
    return tuple(torch.histc(error, bins=NU_BINS, min=0, max=LARGEST_NU).long().tolist())


def _middle(ratios: Ratios, reference: int, of: Bool[Tensor, " features"]) -> tuple[float, float] | None:
    error = _elsewhere(ratios, reference, of).double()
    if not len(error):
        return None
    low, high = error.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
