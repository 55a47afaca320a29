"""What the stage `intervene` finds: the effect of every edit on every task, claims over tasks, doses, side effects."""

from collections.abc import Sequence
from dataclasses import dataclass

from featdiff.files import Json, as_json
from featdiff.intervention.effect_records import (
    BeforeAfter,
    FormRecord,
    FullEffectRecord,
    PooledRecord,
    TextShiftRecord,
)
from featdiff.intervention.effects import decides
from featdiff.stats import Direction


@dataclass(frozen=True)
class Predictions:
    """How often each choice is predicted before and after an edit."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class ChoiceAnswers:
    """Properties of answers that are choices."""

    predictions: Predictions
    answer_format: BeforeAfter
    """Share of the items whose first generated token begins one of the choices."""
    guessing_again: float
    """Share of wrong answers that another choice, picked at random, would put right: mean of 1 / (choices - 1)."""


@dataclass(frozen=True)
class GeneratedAnswers:
    """Properties of answers that are generated."""

    repeats: int
    """Answers to every item."""
    answer_format: FormRecord
    """Share of the texts from which an answer can be extracted."""
    answer_length: FormRecord
    """Mean number of tokens."""


@dataclass(frozen=True)
class TaskEffect(FullEffectRecord):
    """One edit of one model on one task."""

    role: str
    """Of the task."""
    answers: ChoiceAnswers | GeneratedAnswers
    p_holm: float
    """Holm's p over the tasks of the edit."""

    @property
    def generated(self) -> GeneratedAnswers | None:
        """Properties of generated answers; no feature is selected on such a task, whatever its role."""
        return self.answers if isinstance(self.answers, GeneratedAnswers) else None

    @property
    def choices(self) -> ChoiceAnswers | None:
        """Properties of answers that are choices."""
        return self.answers if isinstance(self.answers, ChoiceAnswers) else None

    @property
    def edit_key(self) -> tuple[str, str, Direction]:
        """Edited model, edit, and the expected change: what the effects of one edit have in common."""
        return self.model, self.edit, self.expected

    def beaten(self, confidence: float) -> dict[str, bool]:
        """Whether the change lies beyond each deciding kind of control, by the p against it alone; of choices only."""
        if self.generated:
            return {}
        largest = (1 - confidence) / 2 + 1e-12
        deciding = {kind: one for kind, one in self.controls.items() if decides(kind, one.draws, confidence)}
        return {kind: one.p <= largest for kind, one in deciding.items()}

    def summary(self) -> dict[str, object]:
        """The entry of summary.json."""
        numbers = vars(self.short()) | vars(self.answers) | {"p_holm": self.p_holm}
        return {key: as_json(one) for key, one in numbers.items()}


@dataclass(frozen=True)
class Claim(PooledRecord):
    """One edit of one model over all tasks of choices, on the held-out critical items."""

    model: str
    edit: str
    expected: Direction
    tasks: int
    """Those with held-out critical items."""


@dataclass(frozen=True)
class ControlAccuracy:
    """Mean, lowest and highest accuracy over sets of features matched by activity."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class DoseAccuracy:
    """Accuracy on n items by dose; empty without items."""

    n: int
    before: float | None
    selected: tuple[float, ...]
    control: tuple[ControlAccuracy, ...]
    """Empty where no controls were drawn."""


@dataclass(frozen=True)
class TaskDoses:
    """Accuracy on one task with features set to multiples of their maximum."""

    task: str
    model: str
    features: int
    doses: tuple[float, ...]
    draws: int
    sets: dict[str, DoseAccuracy]
    """On all items and on the critical ones."""


@dataclass(frozen=True)
class SideControls:
    """KL under each set of features matched by activity."""

    draws: int
    kl: tuple[float | None, ...]


@dataclass(frozen=True)
class SideEffect(TextShiftRecord):
    """What one edit does to held-out text, in nats per token."""

    model: str
    edit: str
    features: int
    control: SideControls


@dataclass(frozen=True)
class SideEffects:
    """Those of all edits of one model."""

    edits: tuple[SideEffect, ...]


@dataclass(frozen=True)
class Interventions:
    """All of it; `note` says why there is nothing where no feature was selected."""

    effects: tuple[TaskEffect, ...]
    claims: tuple[Claim, ...] = ()
    doses: tuple[TaskDoses, ...] = ()
    side_effects: tuple[SideEffect, ...] = ()
    note: str = ""

    def summary(self) -> dict[str, Json]:
        """The stage's keys of summary.json."""
        effects: dict[str, Json] = {"effects": [effect.summary() for effect in self.effects]}
        return (
            effects if self.note else effects | {key: as_json(getattr(self, key)) for key in ("claims", "side_effects")}
        )


def by_edit(effects: Sequence[TaskEffect]) -> dict[tuple[str, str, Direction], list[TaskEffect]]:
    """Effects by edited model, edit and expected change, in order of appearance."""
    return {key: [one for one in effects if one.edit_key == key] for key in dict.fromkeys(e.edit_key for e in effects)}


@dataclass(frozen=True)
class DoseCurve:
    """Mean change of accuracy over tasks by dose, on the items called `measured_on`."""

    model: str
    measured_on: str
    tasks: int
    doses: tuple[float, ...]
    selected: tuple[float, ...]
    control: tuple[float, ...]
    """Mean over tasks and draws; empty where there were none."""
    control_low: tuple[float, ...]
    """Mean over tasks of the lowest draw."""
    control_high: tuple[float, ...]
    by_task: dict[str, tuple[float, ...]]


def dose_curves(found: Sequence[TaskDoses]) -> list[DoseCurve]:
    """The curves of each model on its critical and on all items, of those tasks that have such items."""
    curves = list[DoseCurve]()
    for model in dict.fromkeys(one.model for one in found):
        for name in ("critical", "all"):
            tasks = [one for one in found if one.model == model and one.sets[name].n]
            if tasks:
                curves.append(_curve(model, name, tasks))
    return curves


def _curve(model: str, name: str, tasks: Sequence[TaskDoses]) -> DoseCurve:
    sets = {one.task: one.sets[name] for one in tasks}
    changes = {task: tuple(value - (one.before or 0.0) for value in one.selected) for task, one in sets.items()}
    drawn = [one for one in sets.values() if one.control]

    def control(key: str) -> tuple[float, ...]:
        rows = [[getattr(point, key) - (one.before or 0.0) for point in one.control] for one in drawn]
        return _means(rows) if len(drawn) == len(sets) else ()

    return DoseCurve(
        model=model,
        measured_on=name,
        tasks=len(tasks),
        doses=tasks[0].doses,
        selected=_means(list(changes.values())),
        control=control("mean"),
        control_low=control("low"),
        control_high=control("high"),
        by_task=changes,
    )


def _means(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(sum(column) / len(column) for column in zip(*rows, strict=True))
