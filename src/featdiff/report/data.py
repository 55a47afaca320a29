"""What a report needs to know: plain values, filled from the files of a run.

Accuracies, shares and changes are fractions (0.25 is 25 %, or 25 points of change); an interval is [low, high].
Sequences may be lists or tuples, so that JSON goes straight in. A part that a study does not have is empty or None, and
the page says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from featdiff.analyses.editing_methods.result import WaysPanel
from featdiff.analyses.intervention.result import CausalPanel, GeneratedRow
from featdiff.analyses.sensitivity.result import SensitivityPanel
from featdiff.presentation.words import Number, Unknown

UNSEEN = "unseen"
"""Role of a task that is kept out of the selection of features."""


@dataclass(frozen=True)
class SelectionPanel:
    """Which features were selected, by which rule, from how many critical items of each task (Fig. 4)."""

    model: str
    lineup: str
    score: str
    threshold: Number
    rule: str
    tasks: Sequence[str]
    per_task: Mapping[str, int]
    critical: Mapping[str, int]
    """Items that the base gets wrong and the model right, by task."""
    mirror: Mapping[str, int]
    """Items that the base gets right and the model wrong, by task."""
    chosen: Sequence[int]
    overlap: Sequence[Sequence[Number]]
    """Jaccard overlap of the features of each two tasks."""
    in_at_least: Sequence[int] = ()
    """Number of features selected in at least 1, 2, ... tasks."""


@dataclass(frozen=True)
class FoundAgain:
    """One selected feature under other seeds."""

    feature: int
    matched_in: int
    mean: Unknown
    deviation: Unknown


@dataclass(frozen=True)
class ChosenStability:
    """The selected features under `other_seeds` other seeds; a stable one is matched in at least `needed` of them."""

    model: str
    other_seeds: int
    needed: int
    features: Sequence[FoundAgain]

    @property
    def stable(self) -> int | None:
        """How many are; None where there are too few seeds to tell."""
        if self.other_seeds < self.needed:
            return None
        return sum(one.matched_in >= self.needed for one in self.features)


@dataclass(frozen=True)
class SetChange:
    """Accuracy on one set of n items before and after an edit; `interval` is that of the change.

    `before` and `after` are None where there are no items.
    """

    before: Unknown
    after: Unknown
    n: int
    interval: Sequence[Unknown]

    @property
    def change(self) -> Unknown:
        """After less before."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class ControlDraws:
    """The change that random features of matched activity make on the set called `measured_on`, draw by draw."""

    draws: int
    mean: Unknown
    interval: Sequence[Unknown]
    values: Sequence[Number] = ()
    measured_on: str = "critical"


@dataclass(frozen=True)
class EffectRow:
    """What one edit of the selected features does to one model on one task (Tables 2-5)."""

    task: str
    role: str
    model: str
    edit: str
    """"zero", or in words what is done to the features, for example "set to 3.0"."""
    expected: str
    """"decrease" or "increase": what a feature that controls generalization would do."""
    features: int
    sets: Mapping[str, SetChange]
    """By name: critical, mirror, all, held_out."""
    control: ControlDraws
    p: Number
    """Empirical p in the expected direction, against the deciding kind of control that does most."""
    verdict: str
    beaten: Mapping[str, bool] = field(default_factory=dict)
    """By deciding kind of control: whether the change lies beyond it. Empty where kinds were not taken apart."""
    guessing_again: Number | None = None
    """Share of wrong answers that another choice, picked at random, would put right; of choices only."""
    generated: GeneratedRow | None = None
    """Where answers are generated rather than chosen; no features are selected on such a task, whatever its role."""


@dataclass(frozen=True)
class ReportData:
    """Everything that the page says."""

    study: str
    models: Sequence[str]
    """Base first."""
    selection: SelectionPanel | None
    effects: Sequence[EffectRow]
    confidence: Number = 0.95
    chosen_stability: ChosenStability | None = None
    """The selected features under other seeds."""
    sensitivity: SensitivityPanel | None = None
    """What hangs on choices of the dictionary; None where they are not varied."""
    causal: CausalPanel = field(default_factory=CausalPanel)
    """Claims, controls, doses, side effects, and where the selected features come from."""
    ways: WaysPanel | None = None
    """Features beside other ways to change the base."""
