"""Effect of an edit on the accuracy of a model, compared with random controls (Sec. 7.1, B.4, Tables 2-5).

Critical items were chosen because the model answers them rightly, or because the base does not: there any perturbation
seems to have the expected effect. An `Effect` therefore holds four sets of items, and for each what random features do.

| set      | items                                                | features chosen on       |
|----------|------------------------------------------------------|--------------------------|
| critical | base wrong, tuned model right                        | these items              |
| mirror   | base right, tuned model wrong                        | the critical items       |
| all      | the whole task                                       | the critical items       |
| held_out | critical items that the choice of features never saw | the other critical items |

The headline (control, p, verdict) is that of `held_out`. Features matched by activity always decide; uniform features
and random directions decide with them if they were drawn often enough. Other kinds of control are shown and decide
nothing: a mean difference that does as much says that the features are not compact, not that they do nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.config.intervention import ControlName
from featdiff.intervention.edits import Edit
from featdiff.intervention.effect_records import (
    AccuracyRecord,
    ControlDraws,
    ControlRecord,
    ControlTest,
    ControlTestDraws,
    EffectRecord,
    FlipsRecord,
    FullEffectRecord,
    SetRecord,
)
from featdiff.stats import (
    POWER,
    Direction,
    Draws,
    Flips,
    Interval,
    Verdict,
    empirical_p,
    largest_p,
    minimum_detectable_effect,
    paired_bootstrap,
    verdict,
)

ItemSetName = Literal["critical", "mirror", "all", "held_out"]
HEADLINE: ItemSetName = "held_out"

MATCHED: ControlName = "activity-matched"
DECIDING: tuple[ControlName, ...] = (MATCHED, "uniform alive", "random directions")
"""Kinds that an effect has to beat."""


@dataclass(frozen=True, eq=False)
class EditedAnswers:
    """Whether each item is answered rightly under an edit, and under that of each control."""

    after: Bool[Tensor, " items"]
    controls: Bool[Tensor, "draws items"]
    """Random features matched by activity, edited in the same way."""
    others: Mapping[ControlName, Bool[Tensor, "_ items"]] = field(default_factory=dict)
    """Other kinds of control."""


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
    """The change under each set of features matched by activity."""
    p: float
    """(1 + controls at least as extreme in the expected direction) / (1 + draws), by the deciding kind of control that
    does most."""
    verdict: Verdict
    flips: Flips
    """Items lost and gained, with McNemar's p."""
    others: Mapping[ControlName, Draws] = field(default_factory=dict)
    """The change under other kinds of control."""

    @property
    def control(self) -> Interval:
        """Mean change under the control sets, with the quantiles between which they lie."""
        return control_interval(self.controls, self.change.confidence)

    @property
    def beyond_controls(self) -> Interval:
        """The change less that of the control sets: how far it lies from their mean, and from their quantiles."""
        control = self.control
        value = self.change.value - control.value
        return Interval(value, self.change.value - control.high, self.change.value - control.low, control.confidence)

    @property
    def detectable(self) -> float:
        """Share of the items that must change to be found with a probability of `POWER`; infinite: none is enough."""
        return minimum_detectable_effect(self.n, confidence=self.change.confidence, power=POWER)

    def by_kind(self, expected: Direction) -> dict[ControlName, ControlTest]:
        """What each kind of control does, and the empirical p against it alone."""
        kinds: dict[ControlName, Draws] = {MATCHED: self.controls, **self.others}
        return {kind: self._tested(draws, expected) for kind, draws in kinds.items() if len(draws)}

    def accuracies(self) -> AccuracyRecord:
        """Accuracies before and after, as they are stored in summary.json."""
        return AccuracyRecord(self.before, self.after, self.n, [self.change.low, self.change.high])

    def record(self, expected: Direction) -> SetRecord:
        """Everything about the set, as it is stored in effects.json."""
        controls: dict[ControlName, ControlTestDraws] = {
            kind: ControlTestDraws(**vars(self._tested(draws, expected)), values=draws.tolist())
            for kind, draws in self.others.items()
            if len(draws)
        }
        matched = control_record(self.control, len(self.controls))
        return SetRecord(
            **vars(self.accuracies()),
            change=or_null(self.change.value),
            flips=flips_record(self.flips),
            detectable=or_null(self.detectable),
            controls=controls,
            control=ControlDraws(**vars(matched), values=self.controls.tolist()),
            beyond_controls=control_record(self.beyond_controls, len(self.controls)),
            p=self.p,
            verdict=self.verdict,
        )

    def _tested(self, draws: Draws, expected: Direction) -> ControlTest:
        side: Literal["less", "greater"] = "less" if expected == "decrease" else "greater"
        record = control_record(control_interval(draws, self.change.confidence), len(draws))
        return ControlTest(**vars(record), p=empirical_p(self.change.value, draws, side))


@dataclass(frozen=True, eq=False)
class Effect:
    """One edit of one model on one task. Cannot be built without all four sets, each with interval and controls."""

    task: str
    model: str
    edit: str
    features: int
    expected: Direction
    sets: dict[ItemSetName, SetEffect]

    def __post_init__(self) -> None:
        if missing := [name for name in get_args(ItemSetName) if name not in self.sets]:
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

    def record(self) -> EffectRecord:
        """The entry of summary.json."""
        return self.full_record().short()

    def full_record(self) -> FullEffectRecord:
        """The entry of summary.json with every set's controls, p and verdict, and the change under each control."""
        headline = self.headline
        return FullEffectRecord(
            task=self.task,
            model=self.model,
            edit=self.edit,
            features=self.features,
            sets={name: effect.record(self.expected) for name, effect in self.sets.items()},
            control=control_record(headline.control, len(headline.controls)),
            p=headline.p,
            verdict=headline.verdict,
            controls=headline.by_kind(self.expected),
            expected=self.expected,
        )


def measure_effect(
    task: str,
    model: str,
    edit: Edit,
    before: Bool[Tensor, " items"],
    answers: EditedAnswers,
    held_out: EditedAnswers,
    sets: ItemSets,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Effect:
    """Measure the effect of an edit from which items are answered rightly before and after.

    Arguments:
        task, model: names of the task and of the edited model.
        edit: the edit; its expected direction decides the one-sided p-values.
        before: whether each item is right without an edit.
        answers: the same under `edit` and its controls.
        held_out: the same under the edit of the features that were chosen without the held-out items.
        sets: critical, mirror and held-out items, by index.
        resamples: of the bootstrap behind each interval.
        confidence: coverage of the intervals; 1 - confidence is the level of the tests.
        seed: of the bootstrap.

    Raises ValueError without control draws, or when answers and items do not fit.
    """
    _check(before, answers, held_out)
    expected = edit.expected
    everything = before.new_ones(len(before)).nonzero().flatten()
    parts: list[tuple[ItemSetName, Int[Tensor, " chosen"], EditedAnswers]] = [
        ("critical", sets.critical, answers),
        ("mirror", sets.mirror, answers),
        ("all", everything, answers),
        ("held_out", sets.held_out, held_out),
    ]
    effects: dict[ItemSetName, SetEffect] = {
        name: _set_effect(before, part, items, expected, resamples=resamples, confidence=confidence, seed=seed)
        for name, items, part in parts
    }
    return Effect(task, model, edit.name, len(edit.features), expected, effects)


def _set_effect(
    before: Bool[Tensor, " items"],
    answers: EditedAnswers,
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
        return empty_set_effect(change)
    others: dict[ControlName, Draws] = {kind: _changes(old, after[:, chosen]) for kind, after in answers.others.items()}
    accuracies = int(old.sum()) / n, int(new.sum()) / n
    return assess_set(change, accuracies, Flips.of(old, new), _changes(old, random), others, expected)


def assess_set(
    change: Interval,
    accuracies: tuple[float, float],
    flips: Flips,
    controls: Float[np.ndarray, " draws"],
    others: Mapping[ControlName, Draws],
    expected: Direction,
) -> SetEffect:
    """Assess the change on one set of items, with p and verdict by the kinds of control that decide.

    `accuracies` are those before and after, `controls` the changes under features matched by activity.
    """
    deciding = [controls, *(others[kind] for kind in deciding_kinds(others, change.confidence))]
    p = largest_p(change.value, deciding, expected)
    found = verdict(change, flips, deciding, expected=expected)
    return SetEffect(flips.n, *accuracies, change, controls, p, found, flips, others)


def empty_set_effect(change: Interval) -> SetEffect:
    """Effect on a set without items."""
    return SetEffect(0, None, None, change, np.zeros(0), 1.0, "underpowered", Flips(0, 0, 0))


def deciding_kinds(others: Mapping[ControlName, Draws], confidence: float) -> list[ControlName]:
    """Kinds of random control, other than those matched by activity, with enough draws for a significant p."""
    return [kind for kind, draws in others.items() if decides(kind, len(draws), confidence)]


def decides(kind: str, draws: int, confidence: float) -> bool:
    """Whether an effect has to beat controls of this kind, of which there are so many draws."""
    return kind == MATCHED or (kind in DECIDING and draws >= 2 / (1 - confidence) - 1 - 1e-9)


def _changes(before: Bool[Tensor, " items"], after: Bool[Tensor, "draws items"]) -> Float[np.ndarray, " draws"]:
    """Mean change in each draw; counted before division, so that equal changes are equal floats: ties decide the p."""
    return (after.sum(dim=1) - before.sum()).cpu().numpy() / len(before)


def _check(before: Bool[Tensor, " items"], *answers: EditedAnswers) -> None:
    for part in answers:
        widths = {len(part.after), part.controls.shape[1], *(after.shape[1] for after in part.others.values())}
        if widths != {len(before)}:
            raise ValueError(
                f"{len(before)} items were answered before the edit, {len(part.after)} after it; give the same"
            )
        if not len(part.controls):
            raise ValueError("an effect without control sets proves nothing; draw some (intervention.controls)")


def control_interval(values: Float[np.ndarray, " draws"], confidence: float) -> Interval:
    """Mean of the controls' values, with the quantiles between which they lie; nan where there are none."""
    if not len(values):
        return Interval(math.nan, math.nan, math.nan, confidence)
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method="weibull")  # one more draw lies inside as often as said
    return Interval(float(values.mean()), float(low), float(high), confidence)


def control_record(interval: Interval, draws: int) -> ControlRecord:
    """Controls as they are stored."""
    return ControlRecord(draws, or_null(interval.value), [or_null(interval.low), or_null(interval.high)])


def flips_record(flips: Flips) -> FlipsRecord:
    """Flips as they are stored, with McNemar's p."""
    return FlipsRecord(flips.lost, flips.gained, flips.p)


def or_null(value: float) -> float | None:
    """The value, or None where it is not finite, which JSON cannot hold."""
    return value if math.isfinite(value) else None
