"""What the stage `ways` finds: editing methods on items that none was chosen on, and the neurons that they move."""

from dataclasses import dataclass

from featdiff.config.intervention import ControlName
from featdiff.files import Json, as_json
from featdiff.intervention.effect_records import BeforeAfter, ControlRecord, FlipsRecord, TextShiftRecord
from featdiff.stats import Verdict

NOT_BEYOND: Verdict = "not distinguishable from random features"
SHORT: dict[Verdict, str] = {
    "supported": "beyond them",
    "opposite": "below them",
    "underpowered": "too few to tell",
    NOT_BEYOND: "not beyond them",
}
"""What a verdict says of a method, of random edits as large."""
ABOVE = "above the tap"
"""Part of the models in which every edit acts."""


@dataclass(frozen=True)
class Difference:
    """The change less that of random edits: from their mean, and from their quantiles."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """A change against random edits as large; `controls` is empty and `beyond` None where there are no items."""

    flips: FlipsRecord
    controls: dict[ControlName, ControlRecord]
    p: float
    verdict: Verdict
    beyond: Difference | None

    @property
    def control(self) -> ControlRecord:
        """The one kind of random edit."""
        return next(iter(self.controls.values()))

    @property
    def short(self) -> str:
        """The verdict in two words."""
        return SHORT[self.verdict]


@dataclass(frozen=True)
class Change:
    """Mean change of the base's accuracy over tasks, on n items."""

    n: int
    change: float | None
    interval: tuple[float, float]
    compared: Comparison | None
    """None for tuned weights, for which there are no random edits."""

    def summary(self) -> dict[str, object]:
        """The entry of summary.json."""
        numbers: dict[str, object] = {"n": self.n, "change": self.change, "interval": self.interval}
        if self.compared is None:
            return numbers
        numbers |= {key: as_json(one) for key, one in vars(self.compared).items() if one is not None}
        renamed = {"verdict": "not distinguishable from its controls"} if self.compared.verdict == NOT_BEYOND else {}
        return numbers | renamed


@dataclass(frozen=True)
class Changes:
    """Changes of accuracy by set of items."""

    critical: Change
    mirror: Change
    all: Change
    histogram_shift: float
    """Total variation between how often each choice is predicted before and after; mean over tasks."""

    def summary(self) -> dict[str, Json]:
        """The entry of summary.json."""
        sets: dict[str, Json] = {name: getattr(self, name).summary() for name in ("critical", "mirror", "all")}
        return sets | {"histogram_shift": self.histogram_shift}


@dataclass(frozen=True)
class TextEffect(TextShiftRecord):
    """What a method does to neutral text, in nats per token."""

    control_kl: tuple[float | None, ...]
    """KL under some of its random edits."""


@dataclass(frozen=True)
class Method:
    """One editing method."""

    name: str
    title: str
    edit: bool
    """Whether the base is edited; otherwise a model was tuned."""
    control: ControlName | None
    """What the random edits are; None for weights."""
    tried: tuple[tuple[float, float, float], ...]
    """What could be chosen, with the gain on the choosing half, and that of random edits."""
    reliability: Changes
    """On held-out items of the selecting tasks."""
    generalization: Changes | None
    """On unseen tasks; None where there are none."""
    side_effects: TextEffect
    answer_format: BeforeAfter
    """Share of held-out critical items on which the first generated token would begin one of the choices."""

    def summary(self) -> dict[str, Json]:
        """The entry of summary.json."""
        return {
            "title": self.title,
            "reliability": self.reliability.summary(),
            "generalization": None if self.generalization is None else self.generalization.summary(),
            "side_effects": as_json(self.side_effects),
            "answer_format": as_json(self.answer_format),
        }


@dataclass(frozen=True)
class Chance:
    """Jaccard overlap of two random sets: mean, and upper end of the interval."""

    mean: float
    high: float


@dataclass(frozen=True)
class NeuronOverlap:
    """Jaccard overlap of the neurons that two methods move most, `size` of `neurons`."""

    where: str
    methods: tuple[str, ...]
    neurons: int
    size: int
    jaccard: tuple[tuple[float, ...], ...]
    p: tuple[tuple[float, ...], ...]
    """Probability of an overlap as large by chance."""
    chance: Chance
    halves: tuple[float, ...]
    """Overlap of a method with itself, on two halves of the items: as much as can be expected."""
    target: str
    controls: tuple[tuple[float, ...], ...]
    """Overlap of each method's random edits with the target."""

    def pair(self, first: str, second: str) -> float | None:
        """The overlap of two methods; None where one of them is not there."""
        if first not in self.methods or second not in self.methods:
            return None
        return self.jaccard[self.methods.index(first)][self.methods.index(second)]

    def summary(self) -> dict[str, Json]:
        """The entry of summary.json."""
        numbers = {key: as_json(getattr(self, key)) for key in ("where", "size", "jaccard", "chance")}
        return numbers | {"ways": self.methods}


@dataclass(frozen=True)
class ChoosingItems:
    """The half of the items on which methods are made."""

    tasks: tuple[str, ...]
    items: int
    critical: int


@dataclass(frozen=True)
class EditingMethods:
    """All of it; `note` says why where nothing could be compared."""

    target: str
    """The model whose behaviour is put into the base."""
    features: tuple[int, ...]
    choosing: ChoosingItems
    methods: tuple[Method, ...] = ()
    overlaps: tuple[NeuronOverlap, ...] = ()
    note: str = ""

    @property
    def edits(self) -> list[Method]:
        """The methods that edit the base."""
        return [method for method in self.methods if method.edit]

    def shared(self, name: str) -> tuple[float | None, float | None]:
        """Overlap of one method with the target above the hook point, and the mean overlap of its random edits; None
        where there are none."""
        for one in self.overlaps:
            if one.where == ABOVE and name in one.methods:
                draws = one.controls[one.methods.index(name)]
                return one.pair(name, one.target), sum(draws) / len(draws) if draws else None
        return None, None

    def summary(self) -> dict[str, Json]:
        """The stage's keys of summary.json."""
        found: dict[str, Json] = {
            "ways": {method.name: method.summary() for method in self.methods},
            "overlap": [one.summary() for one in self.overlaps],
        }
        return {"ways": found | ({"note": self.note} if self.note else {})}
