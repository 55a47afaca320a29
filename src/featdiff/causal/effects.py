"""What an edit did to a model's answers, beside everything that could have done the same (Sec. 7.1, B.4, Tables 2-5).

Critical items were chosen because the model answers them rightly, or because the base does not: there any perturbation
seems to have the expected effect. An `Effect` therefore holds four sets of items, and for each what random features do.

| set      | items                                                | features chosen on       |
|----------|------------------------------------------------------|--------------------------|
| critical | base wrong, tuned model right                        | these items              |
| mirror   | base right, tuned model wrong                        | the critical items       |
| all      | the whole task                                       | the critical items       |
| held_out | critical items that the choice of features never saw | the other critical items |

The headline (control, p, verdict) is that of `held_out`.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.causal.intervention import Edit
from featdiff.causal.statistics import Direction, Interval, Verdict, empirical_p, paired_bootstrap, verdict

SetName = Literal["critical", "mirror", "all", "held_out"]
HEADLINE: SetName = "held_out"


@dataclass(frozen=True, eq=False)
class Answers:
    """Whether each item is answered rightly under an edit, and under the same edit of each control set."""

    after: Bool[Tensor, " items"]
    controls: Bool[Tensor, "draws items"]


@dataclass(frozen=True, eq=False)
class ItemSets:
    """Items of a task by index.

    `held_out` is the part of `critical` that had no part in the choice of features: all of it, for an unseen task.
    """

    critical: Int[Tensor, " critical"]
    mirror: Int[Tensor, " mirror"]
    held_out: Int[Tensor, " held_out"]


@dataclass(frozen=True, eq=False)
class SetEffect:
    """The effect on one set of n items. Accuracies are None, and nothing is shown, where there are no items."""

    n: int
    before: float | None
    after: float | None
    change: Interval
    """after - before, with its paired bootstrap interval."""
    controls: Float[np.ndarray, " draws"]
    """The change under each control set."""
    p: float
    """(1 + controls at least as extreme in the expected direction) / (1 + draws)."""
    verdict: Verdict

    @property
    def control(self) -> Interval:
        """Mean change under the control sets, with the quantiles between which they lie."""
        return _spread(self.controls, self.change.confidence)

    @property
    def beyond_controls(self) -> Interval:
        """The change less that of the control sets: how far it lies from their mean, and from their quantiles."""
        control = self.control
        value = self.change.value - control.value
        return Interval(value, self.change.value - control.high, self.change.value - control.low, control.confidence)


@dataclass(frozen=True, eq=False)
class Effect:
    """One edit of one model on one task. Cannot be built without all four sets, each with interval and controls."""

    task: str
    model: str
    edit: str
    features: int
    expected: Direction
    sets: dict[SetName, SetEffect]

    def __post_init__(self) -> None:
        if missing := [name for name in get_args(SetName) if name not in self.sets]:
            raise ValueError(f"the effect on {self.task} lacks the sets {missing}; measure them as well")
        for name, effect in self.sets.items():
            if effect.n and not all(map(math.isfinite, (effect.change.value, effect.change.low, effect.change.high))):
                raise ValueError(f"the change on the {name} items of {self.task} has no interval; give one")
            if effect.n and not len(effect.controls):
                raise ValueError(f"the effect on the {name} items of {self.task} has no controls; draw some")

    @property
    def headline(self) -> SetEffect:
        """The set on which the claim rests: critical items that the choice of features never saw."""
        return self.sets[HEADLINE]

    def to_json(self) -> dict[str, object]:
        """The entry of summary.json."""
        return {
            "task": self.task,
            "model": self.model,
            "edit": self.edit,
            "features": self.features,
            "sets": {name: _accuracies(effect) for name, effect in self.sets.items()},
            "control": _interval_record(self.headline.control, len(self.headline.controls)),
            "p": self.headline.p,
            "verdict": self.headline.verdict,
        }

    def to_record(self) -> dict[str, object]:
        """The entry of summary.json with every set's controls, p and verdict, and the change under each control set."""
        return {**self.to_json(), "expected": self.expected, "sets": {name: _full(e) for name, e in self.sets.items()}}


def measure(
    task: str,
    model: str,
    edit: Edit,
    before: Bool[Tensor, " items"],
    answers: Answers,
    held_out: Answers,
    sets: ItemSets,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Effect:
    """The effect of an edit, from which items are answered rightly before and after.

    `answers` are those under `edit`; `held_out` those under the same edit of the features that were chosen without the
    held-out items. Zeroing is expected to lower accuracy, any other value to raise it. Raises ValueError without
    control draws, or when answers and items do not fit.
    """
    _check(before, answers, held_out)
    expected: Direction = "decrease" if edit.value == 0 else "increase"
    everything = before.new_ones(len(before)).nonzero().flatten()
    parts: list[tuple[SetName, Int[Tensor, " chosen"], Answers]] = [
        ("critical", sets.critical, answers),
        ("mirror", sets.mirror, answers),
        ("all", everything, answers),
        ("held_out", sets.held_out, held_out),
    ]
    effects: dict[SetName, SetEffect] = {
        name: _set_effect(before, part, items, expected, resamples=resamples, confidence=confidence, seed=seed)
        for name, items, part in parts
    }
    return Effect(task, model, edit.name, len(edit.features), expected, effects)


def _set_effect(
    before: Bool[Tensor, " items"],
    answers: Answers,
    chosen: Int[Tensor, " chosen"],
    expected: Direction,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> SetEffect:
    n = len(chosen)
    old, new, random = before[chosen], answers.after[chosen], answers.controls[:, chosen]
    change = paired_bootstrap(old, new, resamples=resamples, confidence=confidence, seed=seed)
    if n == 0:
        return SetEffect(0, None, None, change, np.zeros(0), 1.0, "underpowered")
    # Counts before division, so that equal changes are equal floats: ties decide the empirical p.
    controls = (random.sum(dim=1) - old.sum()).cpu().numpy() / n
    p = empirical_p(change.value, controls, "less" if expected == "decrease" else "greater")
    accuracies = int(old.sum()) / n, int(new.sum()) / n
    return SetEffect(n, *accuracies, change, controls, p, verdict(change, n, controls, expected=expected))


def _check(before: Bool[Tensor, " items"], *answers: Answers) -> None:
    for part in answers:
        if len(part.after) != len(before) or part.controls.shape[1] != len(before):
            raise ValueError(
                f"{len(before)} items were answered before the edit, {len(part.after)} after it; give the same"
            )
        if not len(part.controls):
            raise ValueError("an effect without control sets proves nothing; draw some (intervention.controls)")


def _spread(values: Float[np.ndarray, " draws"], confidence: float) -> Interval:
    if not len(values):
        return Interval(math.nan, math.nan, math.nan, confidence)
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high), confidence)


def _accuracies(effect: SetEffect) -> dict[str, object]:
    return {
        "before": effect.before,
        "after": effect.after,
        "n": effect.n,
        "interval": [effect.change.low, effect.change.high],
    }


def _full(effect: SetEffect) -> dict[str, object]:
    return {
        **_accuracies(effect),
        "change": _or_null(effect.change.value),
        "control": {**_interval_record(effect.control, len(effect.controls)), "values": effect.controls.tolist()},
        "beyond_controls": _interval_record(effect.beyond_controls, len(effect.controls)),
        "p": effect.p,
        "verdict": effect.verdict,
    }


def _interval_record(interval: Interval, draws: int) -> dict[str, object]:
    bounds = [_or_null(interval.low), _or_null(interval.high)]
    return {"draws": draws, "mean": _or_null(interval.value), "interval": bounds}


def _or_null(value: float) -> float | None:
    """JSON has no nan."""
    return value if math.isfinite(value) else None
