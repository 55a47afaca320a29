"""How often every model is right on every task (Table 1), and what it gains on the base item by item."""

from collections.abc import Mapping
from dataclasses import dataclass

from featdiff.evaluation.outcomes import McNemar
from featdiff.files import Json, as_json


@dataclass(frozen=True)
class Gain:
    """Accuracy less that of the base on the same items, with its interval."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Accuracy:
    """One model on one task; shares of right answers, None for what the kind of task does not have."""

    value: float
    n: int
    interval: tuple[float, float]
    """Wilson's."""
    acc: float | None
    """By likelihood, of choices; `acc_norm` by likelihood per byte."""
    acc_norm: float | None
    histogram: tuple[int, ...] | None
    """How often each position was predicted, of choices."""
    repeats: int | None
    """Answers per item, of generated ones."""
    gain: Gain | None
    """Of a tuned model, as are the three that follow."""
    flips: McNemar | None
    sets: dict[str, int] | None
    """Items by who was right."""
    churn: str | None
    """Whether the items that it gained are more than flips both ways, in one sentence."""
    constant_baseline: float
    """What the best constant answer would score."""
    role: str
    note: str
    """What a reader must know about the task's questions."""

    @property
    def beats_base(self) -> bool:
        """Whether the interval of the gain lies above 0."""
        return self.gain is not None and self.gain.interval[0] > 0

    @property
    def below_base(self) -> bool:
        """Whether it lies below 0."""
        return self.gain is not None and self.gain.interval[1] < 0

    def summary(self) -> Mapping[str, Json]:
        """What is defined, for summary.json."""
        return {name: as_json(value) for name, value in vars(self).items() if value is not None}


Table = dict[str, dict[str, Accuracy]]
"""By task and model, the base first."""


@dataclass(frozen=True)
class AccuracyTable:
    """Every model on every task."""

    tasks: Table
