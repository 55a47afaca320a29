"""What the report says of ways to put the tuned model's behaviour into the base: plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Number = int | float
Unknown = Number | None


CALLED = {"features_printed": "features as printed"}
BESIDE = {
    "supported": "beyond them",
    "opposite": "below them",
    "underpowered": "too few to tell",
    "not distinguishable from its controls": "not beyond them",
}
"""What a verdict says of a way beside its random edits."""


def called(name: str) -> str:
    """How sentences and figures call a way."""
    return CALLED.get(name, name)


@dataclass(frozen=True)
class WaySet:
    """The mean change over tasks on one set of items, beside random edits as large, where there are any."""

    n: int
    change: Unknown
    interval: Sequence[Number]
    draws: int = 0
    control: Unknown = None
    control_interval: Sequence[Unknown] = ()
    beyond: Unknown = None
    beyond_interval: Sequence[Number] = ()
    p: Unknown = None
    verdict: str = ""

    @property
    def beside(self) -> str:
        """The verdict in two words."""
        return BESIDE.get(self.verdict, self.verdict)


@dataclass(frozen=True)
class WayRow:
    """One way."""

    name: str
    title: str
    edit: bool
    """Whether the base is edited; otherwise a model was tuned."""
    reference: bool
    """Whether this is the model whose behaviour it is."""
    control: str
    """What the random edits are; empty for weights, beside which stand mirror items alone."""
    tried: Sequence[Sequence[Number]]
    """What could be chosen, with the gain on the choosing half, and that of random edits."""
    reliability: Mapping[str, WaySet]
    """On the selecting tasks, by set of items: critical, mirror, all."""
    generalization: Mapping[str, WaySet]
    """On unseen tasks."""
    kl: Unknown
    control_kl: Sequence[Unknown]
    cross_entropy: tuple[Unknown, Unknown]
    tokens: int
    in_form: tuple[Number, Number]
    histogram_shift: Number


@dataclass(frozen=True)
class WayOverlap:
    """Jaccard overlap of the neurons that two ways move most, `size` of `neurons`."""

    where: str
    ways: Sequence[str]
    neurons: int
    size: int
    jaccard: Sequence[Sequence[Number]]
    p: Sequence[Sequence[Number]]
    chance: Number
    chance_high: Number
    halves: Sequence[Number]
    """Overlap of a way with itself, on two halves of the items: as much as can be expected."""
    target: str
    controls: Sequence[Sequence[Number]]
    """Overlap of each way's random edits with the target."""


@dataclass(frozen=True)
class WaysPanel:
    """All of it."""

    target: str
    rows: Sequence[WayRow]
    overlaps: Sequence[WayOverlap]
    choosing_items: int
    choosing_critical: int

    @property
    def edits(self) -> list[WayRow]:
        """The rows in which the base was edited."""
        return [row for row in self.rows if row.edit]

    def shared(self, name: str) -> tuple[Unknown, Unknown]:
        """Overlap of one way with the target above the tap, and the mean overlap of its random edits; None where there
        are none."""
        for one in self.overlaps:
            if one.where == "above the tap" and name in one.ways:
                place, draws = one.ways.index(name), one.controls[one.ways.index(name)]
                return one.jaccard[place][one.ways.index(one.target)], sum(draws) / len(draws) if draws else None
        return None, None
