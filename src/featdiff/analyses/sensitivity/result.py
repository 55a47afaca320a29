"""What the report knows of choices of the dictionary: their numbers at equal L0 and at equal variance explained, and by
fixed rules what is robust and what is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featdiff.presentation.words import Number, Unknown

BASES = {"l0": "at equal L0", "variance_explained": "at equal variance explained"}
"""Where choices are compared, in words."""
VERDICTS = ("not robust", "undecided", "robust", "no yardstick", "not measured")
OWN = ("reference", "seed")
"""Kinds of rows that are no choice."""


@dataclass(frozen=True)
class QuantityRow:
    """Something that is compared between choices: a share of features, a similarity, or an effect in points."""

    key: str
    label: str
    kind: str


@dataclass(frozen=True)
class ChoiceCell:
    """A number of one choice, with its interval, what chance gives, and whether it changes by more than seeds do."""

    value: Unknown
    low: Unknown = None
    high: Unknown = None
    chance: Unknown = None
    chance_high: Unknown = None
    verdict: str | None = None


@dataclass(frozen=True)
class ChoiceRow:
    """One choice, further seed, or the study's own; cells by where they are read and by quantity. A quantity that the
    choice cannot touch has no cell."""

    label: str
    kind: str
    at: Mapping[str, Mapping[str, ChoiceCell]]


@dataclass(frozen=True)
class EffectCell:
    """One edit with one crosscoder's features, on held-out critical items of all tasks."""

    n: int
    change: Unknown
    interval: Sequence[Unknown]
    control: Unknown
    draws: int
    p: Number
    verdict: str


@dataclass(frozen=True)
class PointRow:
    """One crosscoder: a choice at one strength of its sparsity."""

    choice: str
    kind: str
    strength: Number
    l0: Number
    variance_explained: Mapping[str, Unknown]
    dead_share: Number
    alive: int
    tails: Mapping[str, Mapping[str, int]]
    """Features above each cut, by model."""
    chosen: int | None
    matched: Unknown
    """Share of its features that are found in the study's own crosscoder."""
    effects: Mapping[str, EffectCell]
    """By the model that is edited."""


@dataclass(frozen=True)
class SensitivityPanel:
    """The whole analysis. `at` holds L0 and unexplained share of variance of the study's own crosscoder."""

    quantities: Sequence[QuantityRow]
    choices: Sequence[ChoiceRow]
    points: Sequence[PointRow]
    at: Mapping[str, Number]
    strengths: Sequence[Number]
    rbo_p: Number
    acceptance: Number

    @property
    def seeds(self) -> int:
        """Further seeds of the study's own crosscoder."""
        return sum(row.kind == "seed" for row in self.choices)

    @property
    def tables(self) -> list[tuple[str, list[QuantityRow]]]:
        """Quantities that fit side by side: those of owners, and those of the selected features."""
        shares = [one for one in self.quantities if one.kind == "share"]
        rest = [one for one in self.quantities if one.kind != "share"]
        named = [("Owners of features, in % of the alive ones", shares), ("Selected features and their effects", rest)]
        return [(title, found) for title, found in named if found]


def overall(row: ChoiceRow, key: str) -> str | None:
    """The verdict over both readings: not robust if either says so, robust if whatever was measured is; None where the
    choice cannot touch the quantity."""
    found = [row.at[base][key].verdict for base in BASES if key in row.at.get(base, {})]
    measured = [verdict for verdict in found if verdict != "not measured"]
    return next((verdict for verdict in VERDICTS if verdict in measured), "not measured") if found else None
