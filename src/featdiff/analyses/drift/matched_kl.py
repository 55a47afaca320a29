"""Models at equal drift, side by side: KL, what was learned, and the tail in every pair's crosscoder.

Equal is the KL of the model that moved least: by mixing with the base, and by the checkpoint of nearest KL. Two
questions are asked (`causal.tails`): whether one tuned model still has more specific features than another, each read
through its own crosscoder; and whether SFT on RL's own right answers makes fewer than SFT on the teacher's, read
through SFT's crosscoder, which favours SFT, and through RL's, which favours what imitates RL.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featdiff.analyses.drift.accuracy import Answers
from featdiff.analyses.drift.tails import Tails
from featdiff.attribution.tail_comparison import (
    Order,
    TailDifference,
    paired_tails,
    separate_tails,
    turning_point,
    unanimous,
)
from featdiff.config.study import BASE
from featdiff.evaluation.repeated_sampling import gain_over, share_interval
from featdiff.evaluation.results import TaskResult
from featdiff.files import Json, Record
from featdiff.run.plan import REJECTION, Plan
from featdiff.stats import Interval, mean_of

WHOLE, MIXED, NEAREST = "as trained", "mixed with the base", "nearest checkpoint"


@dataclass(frozen=True)
class Moved:
    """A model between the base and `of` (a tuned model, or the control), and its KL to the base on the tasks."""

    of: str
    name: str
    path: str
    kind: str
    divergence: float


def equal_drift(plan: Plan, folder: Path, moved: Sequence[Moved], least: str, tails: Tails) -> Record:
    """All models and both questions, for the models as they were trained and at the KL of the one that moved least."""
    answers, confidence = Answers(plan, folder), plan.study.intervention.confidence
    base, ways = answers.of(BASE, plan.paths[BASE]), _ways(moved, least)
    results = {
        one.path: answers.of(one.name.replace(" ", "-"), one.path) for by in ways.values() for one in by.values()
    }
    models = [
        {
            "way": way,
            "of": one.of,
            "name": one.name,
            "kl_task": one.divergence,
            "accuracy": _accuracy(base, results[one.path], confidence),
            "tails": {place: tails.counts(place, one.path) for place in tails.places},
        }
        for way, by in ways.items()
        for one in by.values()
    ]
    questions = [question for way, by in ways.items() for question in _questions(plan, way, by, results, tails)]
    return {"base": _accuracy(base, base, confidence), "models": models, "questions": questions}


def _ways(moved: Sequence[Moved], least: str) -> dict[str, dict[str, Moved]]:
    """The models of each way to equal drift; the one that moved least is itself there in all of them."""
    whole = {one.of: one for one in moved if one.kind == "model"}
    mixed = {one.of: one for one in moved if one.kind == "matched"}
    wanted = whole[least].divergence
    trained = [one for one in moved if one.kind in ("checkpoint", "model")]

    def nearest(name: str) -> Moved:
        return min((one for one in trained if one.of == name), key=lambda one: abs(one.divergence - wanted))

    return {
        WHOLE: whole,
        MIXED: {name: mixed.get(name, whole[name]) for name in whole},
        NEAREST: {name: nearest(name) if name != least else whole[name] for name in whole},
    }


def _accuracy(base: Sequence[TaskResult], results: Sequence[TaskResult], confidence: float) -> Json:
    """Mean over tasks, which count alike, and the gain over the base on the same items."""
    return {
        **_interval(mean_of([share_interval(result.shares, confidence=confidence) for result in results])),
        "gain": _interval(_mean_gain(base, results, confidence)),
        "tasks": len(results),
        "items": sum(len(result.samples) for result in results),
    }


def _mean_gain(before: Sequence[TaskResult], after: Sequence[TaskResult], confidence: float) -> Interval:
    return mean_of([gain_over(*pair, confidence=confidence) for pair in zip(before, after, strict=True)])


# ------------------------------------------------------------------ questions


def _questions(
    plan: Plan, way: str, models: Mapping[str, Moved], results: Mapping[str, list[TaskResult]], tails: Tails
) -> Iterator[Json]:
    """Whether each tuned model has more than the one that is studied, and whether the control has fewer than SFT."""
    cut = min(plan.study.attribution.tails, default=None)
    if cut is None:
        return
    confidence = plan.study.intervention.confidence
    for first, second, places in _asked(plan, tails):
        here, there = models[first], models[second]
        readings = [_reading(tails, here, there, one, cut, confidence) for one in places]
        gain = _mean_gain(results[there.path], results[here.path], confidence)
        order: Order = unanimous(reading.order for reading in readings)
        yield {
            "way": way,
            "first": first,
            "second": second,
            "cut": f"{cut:g}",
            "order": order,
            "readings": [_record(*pair) for pair in zip(places, readings, strict=True)],
            "gain": _interval(gain),
        }


def _asked(plan: Plan, tails: Tails) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Two models, and through whose crosscoders each of them is read."""
    studied = plan.study.selection.model if plan.study.selection.model in plan.tuned else plan.tuned[-1]
    for tuned in plan.tuned:
        if tuned != studied and {tuned, studied} <= set(tails.places):
            yield tuned, studied, [(tuned, studied)]
    if REJECTION in plan.drifting and set(plan.tuned) <= set(tails.places):
        yield REJECTION, plan.tuned[0], [(place, place) for place in tails.places]


def _reading(
    tails: Tails, first: Moved, second: Moved, places: tuple[str, str], cut: float, confidence: float
) -> TailDifference:
    here, there = places
    if here != there:
        pair = tails.tail(here, first.path, cut), tails.tail(there, second.path, cut)
        return separate_tails(*pair, confidence=confidence)
    scores = tails.specificity(here, first.path), tails.specificity(here, second.path)
    return paired_tails(*scores, tails.alive(here), cut, confidence=confidence)


def _record(places: tuple[str, str], reading: TailDifference) -> Json:
    return {
        "places": list(places),
        "first": [reading.first.specific, reading.first.measured],
        "second": [reading.second.specific, reading.second.measured],
        "only": None if reading.only_first is None else [reading.only_first, reading.only_second],
        "difference": _interval(reading.difference),
        "order": reading.order,
        "turns_at": turning_point(reading),
    }


def _interval(found: Interval) -> dict[str, Json]:
    value = None if found.value != found.value else found.value
    return {"value": value, "interval": [found.low, found.high]}
