"""Models at equal drift as the report is handed them: SFT has more than RL, the control fewer than SFT."""

from featdiff.analyses.drift.matched_kl_result import (
    EqualDrift,
    EqualModel,
    Estimate,
    MeanAccuracy,
    Order,
    Question,
    Reading,
)

WAYS = ("as trained", "mixed with the base", "nearest checkpoint")
NAMES = (("sft", "rl", "rft"), ("<sft> matched", "rl", "rft matched"), ("sft-1", "rl", "rft-2"))


def accuracy(value: float) -> MeanAccuracy:
    gain = Estimate(value - 0.25, [value - 0.28, value - 0.22])
    return MeanAccuracy(value, [value - 0.02, value + 0.02], gain, tasks=10, items=1000)


def model(way: str, of: str, name: str) -> EqualModel:
    tails = {place: {"0.8": 31 if of == place else 12, "0.9": 1, "measured": 700} for place in ("sft", "rl")}
    return EqualModel(way, of, name, 0.25, accuracy({"sft": 0.45, "rl": 0.6, "rft": 0.55}[of]), tails)


def reading(places: tuple[str, str], first: int, second: int, order: Order) -> Reading:
    change = (first - second) / 700
    only = None if places[0] != places[1] else [1, 20]
    difference = Estimate(change, [change - 0.01, change + 0.01])
    return Reading(places, [first, 700], [second, 700], only, difference, order, turns_at=22)


def questions(way: str, own: Order = "more", control: tuple[Order, Order] = ("fewer", "fewer")) -> list[Question]:
    together: Order = control[0] if control[0] == control[1] else "undecided"
    crossed = [reading(("sft", "sft"), 12, 31, control[0]), reading(("rl", "rl"), 9, 30, control[1])]
    return [
        Question(way, "sft", "rl", "0.8", own, [reading(("sft", "rl"), 31, 12, own)], Estimate(-0.15, [-0.2, -0.1])),
        Question(way, "rft", "sft", "0.8", together, crossed, Estimate(0.1, [0.05, 0.15])),
    ]


EQUAL = EqualDrift(
    base=accuracy(0.25),
    models=[
        model(way, of, name)
        for way, names in zip(WAYS, NAMES, strict=True)
        for of, name in zip(("sft", "rl", "rft"), names, strict=True)
    ],
    questions=[question for way in WAYS for question in questions(way)],
)
