"""Models at equal drift for the report: what they learned, their tails, and two questions about these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Number = int | float
Order = Literal["more", "fewer", "undecided"]

MIXED, NEAREST = "mixed with the base", "nearest checkpoint"


@dataclass(frozen=True)
class Estimate:
    """A share, or a difference of shares, with its interval."""

    value: Number | None
    interval: Sequence[Number]


@dataclass(frozen=True)
class MeanAccuracy:
    """Mean accuracy over tasks, which count alike, and the gain over the base on the same items."""

    value: Number | None
    interval: Sequence[Number]
    gain: Estimate
    tasks: int
    items: int


@dataclass(frozen=True)
class EqualModel:
    """One model in one of the ways to equal drift: as trained, mixed with the base, or a checkpoint."""

    way: str
    of: str
    """The tuned model, or the control, that it is a part of."""
    name: str
    kl_task: float
    accuracy: MeanAccuracy
    tails: Mapping[str, Mapping[str, int]]
    """By the tuned model in whose place it is read, features above each cut and under "measured" of how many."""


@dataclass(frozen=True)
class Reading:
    """Two tails, each [specific, measured]; `places` says through whose crosscoder each was read."""

    places: Sequence[str]
    first: Sequence[int]
    second: Sequence[int]
    only: Sequence[int] | None
    """Features specific in the first alone and in the second alone; None between two crosscoders."""
    difference: Estimate
    order: Order
    turns_at: int | None
    """The number of specific features of the first, nearest to what it is, that would be another order."""


@dataclass(frozen=True)
class Question:
    """Whether the first model has more specific features than the second: what all readings say."""

    way: str
    first: str
    second: str
    cut: str
    order: Order
    readings: Sequence[Reading]
    gain: Estimate
    """Mean accuracy of the first less that of the second, on the same items."""

    @property
    def is_of_control(self) -> bool:
        """Whether both are read through the same crosscoders, as the control must be."""
        return self.readings[0].places[0] == self.readings[0].places[1]


@dataclass(frozen=True)
class EqualDrift:
    """All models compared, and all questions, in each of the ways."""

    base: MeanAccuracy
    models: Sequence[EqualModel]
    questions: Sequence[Question]

    def answered(self, way: str) -> list[Question]:
        """The questions in one way."""
        return [question for question in self.questions if question.way == way]

    def model(self, way: str, of: str) -> EqualModel:
        """One model in one way."""
        return next(one for one in self.models if (one.way, one.of) == (way, of))
