"""What the stage `drift` finds: how far every model moved from the base, and all of them at equal drift."""

from dataclasses import dataclass
from typing import Literal

from featdiff.attribution.tail_comparison import Order

Kind = Literal["checkpoint", "model", "interpolation", "matched"]
Matching = Literal["as trained", "mixed with the base", "nearest checkpoint"]
"""How models are brought to the KL of the one that moved least: not at all; by interpolation with the base; by taking
the checkpoint whose KL is nearest."""


@dataclass(frozen=True)
class ModelDrift:
    """One model between the base and `tuned`: a checkpoint, the tuned model itself, or an interpolation."""

    tuned: str
    """The tuned model, or the control."""
    name: str
    kind: Kind
    alpha: float | None
    """Share of the whole change; None for a checkpoint."""
    kl_task: float
    """KL(base | model) per predicted token, in nats, on right answers of the tasks."""
    kl_neutral: float
    """The same on neutral text."""
    weights: dict[str, float]
    """Relative change by group of tensors, and under "all"."""
    activations: tuple[float, ...]
    """Squared change as a share of the base's variance, after every block."""
    tails: dict[str, int] | None
    """Features above each cut, with this model in the tuned one's place in the crosscoder of the pair, and under
    "measured" of how many; None where there is no such crosscoder."""
    crossed: dict[str, dict[str, int]]
    """Of the control, which has no crosscoder of its own: the same in the place of every tuned model."""

    def read_in(self, place: str) -> dict[str, int] | None:
        """Its tail through the pair crosscoder of one tuned model; None where it was not read there."""
        return self.tails if place == self.tuned else self.crossed.get(place)


@dataclass(frozen=True)
class Estimate:
    """A share, or a difference of shares, with its interval."""

    value: float | None
    interval: tuple[float, float]


@dataclass(frozen=True)
class MeanAccuracy(Estimate):
    """Mean accuracy over tasks, which count alike, and the gain over the base on the same items."""

    gain: Estimate
    tasks: int
    items: int


@dataclass(frozen=True)
class EqualModel:
    """One model at equal drift, or as it was trained."""

    way: Matching
    of: str
    """The tuned model, or the control, between which and the base it lies."""
    name: str
    kl_task: float
    accuracy: MeanAccuracy
    tails: dict[str, dict[str, int]]
    """By the tuned model in whose place it is read, features above each cut and under "measured" of how many."""


@dataclass(frozen=True)
class Reading:
    """Two tails, each (specific, measured)."""

    places: tuple[str, str]
    """In whose place, and so through whose crosscoder, each was read."""
    first: tuple[int, int]
    second: tuple[int, int]
    only: tuple[int, int] | None
    """Features specific in the first alone and in the second alone; None between two crosscoders."""
    difference: Estimate
    order: Order
    turns_at: int | None
    """The number of specific features of the first, nearest to what it is, that would be another order."""


@dataclass(frozen=True)
class Question:
    """Whether the first model has more specific features than the second: what all readings say."""

    way: Matching
    first: str
    second: str
    cut: str
    order: Order
    readings: tuple[Reading, ...]
    gain: Estimate
    """Mean accuracy of the first less that of the second, on the same items."""

    @property
    def is_of_control(self) -> bool:
        """Whether both are read through the same crosscoders, as the control must be."""
        return self.readings[0].places[0] == self.readings[0].places[1]


@dataclass(frozen=True)
class EqualDrift:
    """All models compared, and all questions, as trained and by either matching."""

    base: MeanAccuracy
    models: tuple[EqualModel, ...]
    questions: tuple[Question, ...]

    def answered(self, matching: Matching) -> list[Question]:
        """The questions under one matching."""
        return [question for question in self.questions if question.way == matching]

    def model(self, matching: Matching, of: str) -> EqualModel:
        """One model under one matching."""
        return next(one for one in self.models if (one.way, one.of) == (matching, of))


@dataclass(frozen=True)
class Drift:
    """`drift.json`: all models, the tuned one that moved least on the tasks, and all of them at its KL."""

    least: str
    task_divergence: dict[str, float]
    """KL of every tuned model and of the control, on the tasks."""
    rows: tuple[ModelDrift, ...]
    equal: EqualDrift

    @property
    def controls(self) -> list[str]:
        """Models that have no crosscoder of their own and are read in the place of those that have."""
        return list(dict.fromkeys(row.tuned for row in self.rows if row.crossed))

    @property
    def places(self) -> list[str]:
        """Tuned models with a crosscoder of their own and the base."""
        return list(dict.fromkeys(row.tuned for row in self.rows if row.tails is not None))

    @property
    def cut(self) -> str | None:
        """The lowest cut at which tails were counted."""
        cuts = {cut for row in self.rows for cut in row.tails or {}} - {"measured"}
        return min(cuts, key=float, default=None)

    def of(self, tuned: str, *kinds: Kind) -> list[ModelDrift]:
        """The models of these kinds that lie between the base and one tuned model, by rising KL."""
        found = [row for row in self.rows if row.tuned == tuned and row.kind in kinds]
        return sorted(found, key=lambda row: row.kl_task)
