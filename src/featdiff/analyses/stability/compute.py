"""Which features of a lineup are found again under other seeds, and how far its counts vary."""

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from featdiff.analyses.stability.result import LineupStability, OverSeeds
from featdiff.attribution.stability import ENOUGH, ScoredCrosscoder, Stability, stability_of
from featdiff.config.evidence import StabilitySettings
from featdiff.config.study import AttributionSettings
from featdiff.files import save


def write_stability(
    seeds: Sequence[ScoredCrosscoder],
    names: Sequence[str],
    attribution: AttributionSettings,
    settings: StabilitySettings,
    place: Path,
) -> LineupStability:
    """Compare the crosscoders of one lineup over its seeds.

    Args:
        seeds: the crosscoders, which differ in the seed alone, with their scores; the first is compared with the rest.
        names: what they are called.
        attribution: holds the cuts of the tails.
        settings: which features of two crosscoders are the same one.
        place: path without ending; `.json` gets the counts, `.safetensors` every feature's matches and scores
            (matched_in [features], partner and cosine [others features], mas [seeds features models]).
    """
    found = stability_of(list(seeds), attribution.tails, settings.acceptance)
    result = result_of(found, tuple(names))
    save(result, place.with_name(f"{place.name}.json"))
    tensors = {"matched_in": found.matched_in, "partner": found.partner, "cosine": found.cosine, "mas": found.mas}
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, place.with_name(f"{place.name}.safetensors"))
    return result


def result_of(found: Stability, names: tuple[str, ...] = ()) -> LineupStability:
    """The counts of one lineup."""
    enough = len(found.seeds) > ENOUGH
    return LineupStability(
        seeds=found.seeds,
        acceptance=found.acceptance,
        alive=int(found.alive.sum()),
        needed=ENOUGH,
        stable=int((found.stable & found.alive).sum()) if enough else None,
        curve=dict(found.curve) if enough else None,
        pw_mcc=found.pw_mcc,
        tails={
            model: {cut: OverSeeds(one.values, one.mean, _defined(one.deviation)) for cut, one in cuts.items()}
            for model, cuts in found.tails.items()
        },
        stable_tails=None if found.stable_tails is None else {m: dict(c) for m, c in found.stable_tails.items()},
        crosscoders=names,
    )


def _defined(value: float) -> float | None:
    return None if value != value else value
