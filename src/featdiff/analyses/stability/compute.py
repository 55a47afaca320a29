"""`stability`: which features of a lineup are found again under other seeds, and how far its counts vary."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from featdiff.attribution.stability import ENOUGH, Spread, Stability, mean_and_deviation, stability_of
from featdiff.files import Record, write_json
from featdiff.run.plan import Plan
from featdiff.run.scored import plain, scored_seeds


def stability(plan: Plan, folder: Path) -> None:
    """Write `<lineup>.json` (tails under every seed, shares of stable features) and `<lineup>.safetensors` (every
    feature's matches and scores) for every lineup with several seeds."""
    for lineup, names in plan.seeds.items():
        if len(names) < 2:
            continue
        settings = plan.study
        found = stability_of(scored_seeds(plan, lineup), settings.attribution.tails, settings.stability.acceptance)
        write_json(folder / f"{lineup}.json", record(found) | {"crosscoders": list(names)})
        tensors = {"matched_in": found.matched_in, "partner": found.partner, "cosine": found.cosine, "mas": found.mas}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / f"{lineup}.safetensors")


def record(found: Stability) -> Record:
    """The counts of one lineup as JSON."""
    alive = int(found.alive.sum())
    stable = int((found.stable & found.alive).sum())
    return {
        "seeds": list(found.seeds),
        "acceptance": found.acceptance,
        "alive": alive,
        "needed": ENOUGH,
        "stable": stable if len(found.seeds) > ENOUGH else None,
        "curve": plain(found.curve) if len(found.seeds) > ENOUGH else None,
        "pw_mcc": list(found.pw_mcc),
        "tails": {
            model: {cut: spread_record(spread) for cut, spread in cuts.items()} for model, cuts in found.tails.items()
        },
        "stable_tails": plain(found.stable_tails),
    }


def spread_record(spread: Spread) -> Record:
    """Values under every seed, their mean and standard deviation."""
    return {"values": list(spread.values), "mean": spread.mean, "deviation": plain(spread.deviation)}


def stability_of_features(plan: Plan, lineup: str, features: list[int], model: str) -> Record | None:
    """For some features of a lineup, from `stability`: in how many other seeds each is matched, and the mean and
    standard deviation of its score for a model over the seeds that have it; None where the lineup has one seed."""
    if len(plan.seeds[lineup]) < 2:
        return None
    tensors = load_file(plan.run.path("stability", f"{lineup}.safetensors"))
    mean, deviation = mean_and_deviation(tensors["mas"][:, features, plan.crosscoders[lineup].models.index(model)])
    return {
        "other_seeds": len(plan.seeds[lineup]) - 1,
        "needed": ENOUGH,
        "matched_in": tensors["matched_in"][features].tolist(),
        "score": {"model": model, "mean": plain(mean), "deviation": plain(deviation)},
    }
