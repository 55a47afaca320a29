"""Made-up drift: at equal drift SFT has more specific features than RL, the control fewer than SFT."""

from dataclasses import replace

from featdiff.analyses.drift.result import (
    Drift,
    EqualDrift,
    EqualModel,
    Estimate,
    Kind,
    Matching,
    MeanAccuracy,
    ModelDrift,
    Question,
    Reading,
)
from featdiff.attribution.tail_comparison import Order
from featdiff.run.results import SampleCounts

MATCHINGS: tuple[Matching, ...] = ("as trained", "mixed with the base", "nearest checkpoint")
NAMES = (("sft", "rl", "rft"), ("<sft> matched", "rl", "rft matched"), ("sft-1", "rl", "rft-2"))


def accuracy(value: float) -> MeanAccuracy:
    gain = Estimate(value - 0.25, (value - 0.28, value - 0.22))
    return MeanAccuracy(value, (value - 0.02, value + 0.02), gain, tasks=10, items=1000)


def model(matching: Matching, of: str, name: str) -> EqualModel:
    tails = {place: {"0.8": 31 if of == place else 12, "0.9": 1, "measured": 700} for place in ("sft", "rl")}
    return EqualModel(matching, of, name, 0.25, accuracy({"sft": 0.45, "rl": 0.6, "rft": 0.55}[of]), tails)


def reading(places: tuple[str, str], first: int, second: int, order: Order) -> Reading:
    change = (first - second) / 700
    only = None if places[0] != places[1] else (1, 20)
    difference = Estimate(change, (change - 0.01, change + 0.01))
    return Reading(places, (first, 700), (second, 700), only, difference, order, turns_at=22)


def questions(
    matching: Matching, own: Order = "more", control: tuple[Order, Order] = ("fewer", "fewer")
) -> tuple[Question, ...]:
    together: Order = control[0] if control[0] == control[1] else "undecided"
    crossed = reading(("sft", "sft"), 12, 31, control[0]), reading(("rl", "rl"), 9, 30, control[1])
    own_places = (reading(("sft", "rl"), 31, 12, own),)
    return (
        Question(matching, "sft", "rl", "0.8", own, own_places, Estimate(-0.15, (-0.2, -0.1))),
        Question(matching, "rft", "sft", "0.8", together, crossed, Estimate(0.1, (0.05, 0.15))),
    )


EQUAL = EqualDrift(
    base=accuracy(0.25),
    models=tuple(
        model(matching, of, name)
        for matching, names in zip(MATCHINGS, NAMES, strict=True)
        for of, name in zip(("sft", "rl", "rft"), names, strict=True)
    ),
    questions=tuple(question for matching in MATCHINGS for question in questions(matching)),
)


def row(tuned: str, name: str, kind: Kind, alpha: float | None, kl: float, tail: int) -> ModelDrift:
    weights, tails = {"attention": 0.1, "all": 0.05}, {"0.8": tail, "0.9": 1, "measured": 700}
    return ModelDrift(tuned, name, kind, alpha, kl, kl / 2, weights, (0.01, 0.2), tails, crossed={})


ROWS = (
    row("sft", "sft-1", "checkpoint", None, 0.3, 20),
    row("sft", "sft", "model", 1.0, 0.8, 90),
    row("sft", "sft x 0.5", "interpolation", 0.5, 0.4, 50),
    row("sft", "<sft> matched", "matched", 0.35, 0.25, 31),
    row("rl", "rl", "model", 1.0, 0.25, 12),
)
CONTROL = replace(
    row("rft", "rft", "model", 1.0, 0.3, 0),
    tails=None,
    crossed={"sft": {"0.8": 4, "0.9": 0, "measured": 700}, "rl": {"0.8": 7, "0.9": 0, "measured": 690}},
)
DRIFT = Drift("rl", {"sft": 0.8, "rl": 0.25}, ROWS, EQUAL)
CONTROLLED = replace(DRIFT, rows=(*ROWS, CONTROL))
SAMPLES = SampleCounts(prompts=3840, unanswered=0, drawn=5102, kept=3605, wrong=0, repeated=0)
