"""What a report needs to know: plain values, filled from the files of a run.

Accuracies, shares and changes are fractions (0.25 is 25 %, or 25 points of change); an interval is [low, high].
Sequences may be lists or tuples, so that JSON goes straight in. A part that a study does not have is empty or None, and
the page says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from featdiff.analyses.drift.result import DriftPanel
from featdiff.analyses.dynamics.result import DynamicsPanel
from featdiff.analyses.editing_methods.result import WaysPanel
from featdiff.analyses.intervention.result import CausalPanel, GeneratedRow
from featdiff.presentation.words import Number, Unknown

UNSEEN = "unseen"
"""Role of a task that is kept out of the selection of features."""


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
    dynamics: Sequence[DynamicsPanel]
    effects: Sequence[EffectRow]
    confidence: Number = 0.95
    drift: DriftPanel | None = None
    """How far the models moved, and their tails there."""
    missing_alignments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By paradigm and alignment, why its checkpoints could not be compared so."""
    causal: CausalPanel = field(default_factory=CausalPanel)
    """Claims, controls, doses and side effects."""
    ways: WaysPanel | None = None
    """Features beside other ways to change the base."""
