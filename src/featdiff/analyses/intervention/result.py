"""What the report says on causes: claims over tasks, every control, doses, side effects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Number = int | float
Unknown = Number | None


@dataclass(frozen=True)
class KindRow:
    """What one kind of control does to the same items."""

    draws: int
    mean: Unknown
    interval: Sequence[Unknown]
    p: Unknown
    """Empirical p against this kind alone; None where it was not taken by itself."""


@dataclass(frozen=True)
class FormChange:
    """One property of generated answers before and under an edit, with the interval of its change over items."""

    before: Number
    after: Number
    interval: Sequence[Unknown]
    control: KindRow
    """The change under features matched by activity."""


@dataclass(frozen=True)
class GeneratedRow:
    """What is said of an effect on generated answers beside accuracy on the sets of items."""

    repeats: int
    """Answers to every item."""
    lost: int
    """Of all items, those of which fewer answers are right."""
    gained: int
    sign_p: Number
    """Exact test that losses and gains are equally likely."""
    control: KindRow
    """The change on all items under features matched by activity."""
    answer_format: FormChange
    """Share of the texts from which an answer can be extracted."""
    answer_length: FormChange
    """Mean number of tokens."""


@dataclass(frozen=True)
class ClaimRow:
    """One edit of one model over all tasks, on the held-out critical items."""

    model: str
    edit: str
    tasks: int
    n: int
    change: Unknown
    interval: Sequence[Unknown]
    kinds: Mapping[str, KindRow]
    p: Number
    verdict: str


@dataclass(frozen=True)
class EvidenceRow:
    """One edit on one task: what stands behind its verdict."""

    model: str
    edit: str
    task: str
    n: int
    lost: int
    gained: int
    mcnemar: Number
    detectable: Unknown
    """Share of the items that had to change to be found in four of five studies; None: no number is enough."""
    p: Number
    p_holm: Number
    kinds: Mapping[str, KindRow]
    predictions: Mapping[str, Sequence[int]]
    """How often each choice is predicted, before and after."""
    answer_format: Mapping[str, Number]
    """Share of items whose first generated token begins one of the choices, before and after."""


@dataclass(frozen=True)
class SideEffectRow:
    """What one edit does to text that has nothing to do with the tasks, in nats per token."""

    model: str
    edit: str
    kl: Unknown
    before: Unknown
    after: Unknown
    tokens: int
    control_kl: Sequence[Unknown] = ()


@dataclass(frozen=True)
class DoseCurve:
    """Mean change of accuracy over tasks, by dose, on the items called `measured_on`."""

    model: str
    measured_on: str
    tasks: int
    doses: Sequence[Number]
    selected: Sequence[Number]
    control: Sequence[Number]
    """Mean over tasks and draws; empty where there were none."""
    control_low: Sequence[Number]
    """Mean over tasks of the lowest draw."""
    control_high: Sequence[Number]
    by_task: Mapping[str, Sequence[Number]] = field(default_factory=dict)


@dataclass(frozen=True)
class CausalPanel:
    """All of it; parts that a study does not have are empty."""

    claims: Sequence[ClaimRow] = ()
    evidence: Sequence[EvidenceRow] = ()
    side_effects: Sequence[SideEffectRow] = ()
    doses: Sequence[DoseCurve] = ()
