"""What a sensitivity analysis found, from the files of its crosscoders: every number of every choice at equal L0 and at
equal variance explained, with a verdict by fixed rules."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from featdiff.analyses.intervention.compute import tests_of
from featdiff.analyses.sensitivity.features import bases_of, choice_file, curves, effect_file
from featdiff.analyses.sensitivity.variants import Place, settings_of
from featdiff.attribution.robustness import (
    COVERAGE,
    NOT_MEASURED,
    Measurement,
    Robustness,
    interpolate_at,
    robustness_of_similarity,
    robustness_of_value,
)
from featdiff.config.study import BASE
from featdiff.files import Json, Record, read_json
from featdiff.run.evaluation import selecting_tasks
from featdiff.run.intervention_context import PlannedEdit
from featdiff.run.plan import Plan
from featdiff.run.scored import plain
from featdiff.stats import wilson_interval

ITEMS = {"held_out": "held-out critical items", "all": "all items"}
Numbers = dict[str, Measurement]


@dataclass(frozen=True)
class Quantity:
    """Something that is compared between choices."""

    key: str
    label: str
    kind: Literal["share", "similarity", "effect"]


def sensitivity_record(
    plan: Plan, places: Sequence[Place], own: Place, rescored: Mapping[str, Record], folder: Path
) -> Record:
    """Every choice at both bases with its verdicts, and every crosscoder. `rescored` are tails of the study's own."""
    settings, quantities, target = settings_of(plan), _quantities(plan), bases_of(own.quality())
    numbers = {place.name: _numbers(plan, place, folder) for place in places}
    own_numbers, compared = numbers[own.name], {base: dict[str, Numbers]() for base in target}
    for curve in curves(places):
        for base, x in target.items():
            compared[base][curve[0].point.choice.label] = _at(curve, numbers, base, x, quantities)
    choices = {place.point.choice.label: str(place.point.choice.kind) for place in places}
    choices |= dict.fromkeys(rescored, "score")
    for found in compared.values():
        found |= {label: _tails(plan, tails) for label, tails in rescored.items()}
    seeds = [label for label, kind in choices.items() if kind == "seed"]
    record: Record = {
        "coverage": COVERAGE,
        "rbo_p": settings.rbo_p,
        "acceptance": plan.study.stability.acceptance,
        "strengths": sorted(settings.strengths),
        "at": target,
        "quantities": [asdict(one) for one in quantities],
        "choices": [],
        "points": [_point(plan, place, folder) for place in places],
    }
    for label, kind in choices.items():
        one: Record = {"label": label, "kind": kind}
        for base, found in compared.items():
            others = [] if kind in ("reference", "seed") else quantities
            verdicts = _verdicts(others, found[label], own_numbers, [found[seed] for seed in seeds])
            one[base] = {key: _json(number, verdicts.get(key)) for key, number in found[label].items()}
        record["choices"].append(one)
    return record


def _quantities(plan: Plan) -> list[Quantity]:
    models = [model for model in plan.crosscoders[plan.joint].models if model != BASE]
    cuts = [f"{cut:g}" for cut in plan.study.attribution.tails]
    found = [Quantity(f"tail {m} {cut}", f"{m} above {cut}", "share") for m in models for cut in cuts]
    for model in models:
        found += [Quantity(f"absent {model} {cut}", f"{model} above {cut}, absent elsewhere", "share") for cut in cuts]
    if selecting_tasks(plan):
        found += [Quantity("jaccard", "Final features: Jaccard", "similarity")]
        found += [Quantity("rbo", "Their ranking: RBO", "similarity")]
        for test in tests_of(plan)[:2]:
            about = f"{test.model}, {test.value.name}"
            found += [Quantity(f"effect {test.model} {key}", f"{about}: {of}", "effect") for key, of in ITEMS.items()]
    return found


def _at(
    curve: Sequence[Place], numbers: Mapping[str, Numbers], base: str, x: float, quantities: Sequence[Quantity]
) -> Numbers:
    """A choice's numbers where it is as sparse as the study's own crosscoder, or explains as much."""
    xs = [bases_of(place.quality())[base] for place in curve]
    return {
        one.key: interpolate_at(xs, [numbers[place.name].get(one.key, NOT_MEASURED) for place in curve], x)
        for one in quantities
    }


def _verdicts(
    quantities: Sequence[Quantity], found: Numbers, own: Numbers, seeds: Sequence[Numbers]
) -> dict[str, Robustness]:
    verdicts = dict[str, Robustness]()
    for one in quantities:
        if one.key not in found:
            continue
        yardstick = [numbers[one.key] for numbers in seeds]
        if one.kind == "similarity":
            verdicts[one.key] = robustness_of_similarity(found[one.key], yardstick)
        else:
            verdicts[one.key] = robustness_of_value(found[one.key], own.get(one.key, NOT_MEASURED), yardstick)
    return verdicts


# ------------------------------------------------------------------ one crosscoder


def _numbers(plan: Plan, place: Place, folder: Path) -> Numbers:
    """All that is known of one crosscoder."""
    found = _tails(plan, place.tails())
    if choice_file(place, folder).is_file():
        record = read_json(choice_file(place, folder))
        found |= {key: _alike(record[key]) for key in ("jaccard", "rbo")}
    for test, effects in _effects(plan, place, folder):
        found |= {f"effect {test.model} {items}": _beyond(effects[items]) for items in ITEMS}
    return found


def _tails(plan: Plan, tails: Record) -> Numbers:
    """Shares of the alive features in each tail, and of those that latent scaling finds absent elsewhere."""
    confidence, found = plan.study.intervention.confidence, Numbers()
    for model, counts in tails.items():
        for cut in (f"{cut:g}" for cut in plan.study.attribution.tails):
            if model != BASE:
                for key, count in (("tail", counts[cut]), ("absent", counts["scaled"][cut])):
                    share = wilson_interval(count, counts["alive"], confidence=confidence)
                    found[f"{key} {model} {cut}"] = Measurement(share.value, share.low, share.high)
    return found


def _alike(record: Record | None) -> Measurement:
    if record is None:
        return NOT_MEASURED
    return Measurement(record["found"], chance=record["null"], chance_high=record["null_high"])


def _beyond(claim: Record) -> Measurement:
    """The change that an edit makes less that of features matched by activity, with the interval of the change."""
    if claim["change"] is None:
        return NOT_MEASURED
    control, (low, high) = claim["controls"]["activity-matched"]["mean"], claim["interval"]
    return Measurement(claim["change"] - control, low - control, high - control)


def _effects(plan: Plan, place: Place, folder: Path) -> list[tuple[PlannedEdit, Record]]:
    """The edits that were made with its features."""
    files = [(test, effect_file(place, test.model, folder)) for test in tests_of(plan)[:2]]
    return [(test, read_json(file)) for test, file in files if file.is_file()]


def _point(plan: Plan, place: Place, folder: Path) -> Record:
    """One crosscoder in full."""
    choice, quality = place.point.choice, place.quality()
    chosen = choice_file(place, folder)
    return {
        "choice": choice.label,
        "kind": choice.kind,
        "strength": place.point.strength,
        "layer": choice.layer,
        "sparsity": asdict(place.point.crosscoder.sparsity),
        **{key: quality[key] for key in ("variance_explained", "l0", "dead_share", "tokens")},
        "ce_recovered": quality.get("ce_recovered"),
        "tails": place.tails(),
        "selection": read_json(chosen) if chosen.is_file() else None,
        "effects": {test.model: effects for test, effects in _effects(plan, place, folder)},
    }


def _json(number: Measurement, verdict: Robustness | None) -> Json:
    return plain({**asdict(number), "verdict": verdict})
