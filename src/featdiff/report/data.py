"""What a report needs to know: plain values, filled from the files of a run.

Accuracies, shares and changes are fractions (0.25 is 25 %, or 25 points of change); an interval is [low, high].
Sequences may be lists or tuples, so that JSON goes straight in. A part that a study does not have is empty or None, and
the page says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from featdiff.analyses.drift.result import DriftPanel
from featdiff.analyses.dynamics.result import ChosenStability, DynamicsPanel
from featdiff.analyses.sensitivity.result import SensitivityPanel
from featdiff.presentation.words import Number


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
class Elsewhere:
    """What the same pipeline chooses on other items, and how much of the choice is the same."""

    items: int
    chosen: int
    shared: Number
    """Over the smaller of both sets."""
    null: Number
    """What random sets share, drawn by firing rate."""
    p: Number


@dataclass(frozen=True)
class Origin:
    """Where the chosen features come from: overlap of tasks against chance, and choices on other items."""

    model: str
    in_at_least: Sequence[Mapping[str, Number]]
    """For 1, 2, ... tasks: features found, mean and 97.5 % quantile of the null, p."""
    draws: int
    elsewhere: Mapping[str, Elsewhere]
    by_rule: Mapping[str, int]
    """Features in the final set under every rule."""
    without_task: Mapping[str, Number]
    """Jaccard overlap of the choice with that without one task."""


@dataclass(frozen=True)
class ReportData:
    """Everything that the page says."""

    study: str
    models: Sequence[str]
    """Base first."""
    dynamics: Sequence[DynamicsPanel]
    selection: SelectionPanel | None
    confidence: Number = 0.95
    drift: DriftPanel | None = None
    """How far the models moved, and their tails there."""
    missing_alignments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By paradigm and alignment, why its checkpoints could not be compared so."""
    chosen_stability: ChosenStability | None = None
    """The selected features under other seeds."""
    sensitivity: SensitivityPanel | None = None
    """What hangs on choices of the dictionary; None where they are not varied."""
    origin: Origin | None = None
    """Where the selected features come from."""
