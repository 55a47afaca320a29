"""What the stage `select` finds: the features that may control generalization, and what else would be selected."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from featdiff.analyses.stability.result import FeatureStability
from featdiff.selection.agreement import SelectedElsewhere, WithoutTask
from featdiff.selection.overlap import OverlapNull


@dataclass(frozen=True)
class SharedFeatures:
    """What the tasks agree on by one rule."""

    per_task: dict[str, int]
    """Features that each task retains."""
    chosen: tuple[int, ...]
    rule: str
    """"intersection", "k of n", or that nothing was found."""


@dataclass(frozen=True)
class TasksSelection(SharedFeatures):
    """The same with the overlap of the tasks."""

    tasks: tuple[str, ...]
    overlap: tuple[tuple[float, ...], ...]
    """Jaccard overlap of the features of each two tasks (Fig. 4)."""
    overlap_coefficient: tuple[tuple[float, ...], ...]
    in_at_least: tuple[int, ...]
    """Number of features retained by at least 1, 2, ... tasks."""


@dataclass(frozen=True)
class ScoreSelection(TasksSelection):
    """The selection by one score, from all critical items."""

    without_held_out: TasksSelection
    """From the critical items that are not held out."""
    by_rule: dict[str, SharedFeatures]
    """By every rule."""


@dataclass(frozen=True)
class SelectionResult(ScoreSelection):
    """The selection by the score and rule of the study, and what is known of it."""

    score: Literal["branch", "swap"]
    lineup: str
    """The crosscoder that supplies the features."""
    model: str
    """The tuned model."""
    threshold: float
    """Share of a task's largest score above which the rule rel_max retains a feature."""
    critical: dict[str, int]
    """Items that the base gets wrong and the model right, by task."""
    mirror: dict[str, int]
    """Items that the base gets right and the model wrong, by task."""
    by: dict[Literal["branch", "swap"], ScoreSelection]
    null: OverlapNull
    """Overlaps and votes of the tasks, compared with random sets."""
    null_draws: int
    without_task: dict[str, WithoutTask]
    elsewhere: dict[str, SelectedElsewhere]
    """Selections on items that are not critical: both right, both wrong, mirror."""
    stability: FeatureStability | None = None
    """The chosen features under other seeds; None where there is one seed."""

    @property
    def features_over_seeds(self) -> Sequence[tuple[int, int, float | None, float | None]]:
        """Of each chosen feature: its index, in how many other seeds it is matched, and mean and standard deviation of
        its score."""
        if self.stability is None:
            return []
        score = self.stability.score
        return list(zip(self.chosen, self.stability.matched_in, score.mean, score.deviation, strict=True))
