"""Effects as they are stored: plain values under the names of summary.json and effects.json."""

from dataclasses import dataclass

from featdiff.config.intervention import ControlName
from featdiff.stats import Direction, Verdict


@dataclass(frozen=True)
class FlipsRecord:
    """Items lost and gained, and the p-value of McNemar's exact test."""

    lost: int
    gained: int
    p: float


@dataclass(frozen=True)
class ControlRecord:
    """Mean over control draws, with the quantiles between which they lie; None where there are none."""

    draws: int
    mean: float | None
    interval: list[float | None]


@dataclass(frozen=True)
class ControlTest(ControlRecord):
    """One kind of control, and the empirical p of the effect against it alone."""

    p: float


@dataclass(frozen=True)
class ControlDraws(ControlRecord):
    """Controls with the change under each draw."""

    values: list[float]


@dataclass(frozen=True)
class ControlTestDraws(ControlTest):
    """One kind of control, its p, and the change under each draw."""

    values: list[float]


@dataclass(frozen=True)
class AccuracyRecord:
    """Accuracy on n items before and after an edit, with the interval of its change; None without items."""

    before: float | None
    after: float | None
    n: int
    interval: list[float]


@dataclass(frozen=True)
class SetRecord(AccuracyRecord):
    """The effect on one set of items in full."""

    change: float | None
    flips: FlipsRecord
    detectable: float | None
    """Smallest share of the items whose change would be detected; None: no share."""
    controls: dict[ControlName, ControlTestDraws]
    """Kinds of control other than those matched by activity."""
    control: ControlDraws
    """Controls matched by activity."""
    beyond_controls: ControlRecord
    p: float
    verdict: Verdict


@dataclass(frozen=True)
class EffectRecord:
    """An entry of summary.json; control, p and verdict are those of the held-out items."""

    task: str
    model: str
    edit: str
    features: int
    sets: dict[str, AccuracyRecord]
    control: ControlRecord
    p: float
    verdict: Verdict
    controls: dict[ControlName, ControlTest]


@dataclass(frozen=True)
class FullEffectRecord(EffectRecord):
    """An effect with every set's controls, p and verdict, and the change under each control."""

    sets: dict[str, SetRecord]  # pyright: ignore[reportIncompatibleVariableOverride] - frozen, so a subtype is sound
    expected: Direction

    def short(self) -> EffectRecord:
        """The entry of summary.json."""
        sets = {name: AccuracyRecord(one.before, one.after, one.n, one.interval) for name, one in self.sets.items()}
        about = self.task, self.model, self.edit, self.features
        return EffectRecord(*about, sets, self.control, self.p, self.verdict, self.controls)


@dataclass(frozen=True)
class PooledRecord:
    """One edit over several tasks."""

    n: int
    change: float | None
    interval: list[float]
    flips: FlipsRecord
    controls: dict[ControlName, ControlRecord]
    p: float
    verdict: Verdict


@dataclass(frozen=True)
class BeforeAfter:
    """A number before and after an edit."""

    before: float
    after: float


@dataclass(frozen=True)
class TextShiftRecord:
    """KL and cross-entropies per token of text, in nats; None without tokens."""

    kl: float | None
    cross_entropy: BeforeAfter | None
    tokens: int


@dataclass(frozen=True)
class FormRecord:
    """A property of generated answers before and after an edit, with the interval of its change, and under controls."""

    before: float
    after: float
    n: int
    interval: list[float]
    control: ControlRecord


@dataclass(frozen=True)
class AnswerForm:
    """Share of generated texts that hold an answer, and their mean length in tokens."""

    answer_format: FormRecord
    answer_length: FormRecord
