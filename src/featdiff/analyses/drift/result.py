"""What the report says of drift: how far each model moved, and its tail there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from featdiff.analyses.drift.matched_kl_result import EqualDrift


@dataclass(frozen=True)
class DriftRow:
    """One model on the way from the base to `tuned`: a checkpoint, the model itself, or an interpolation.

    `kl_task` and `kl_neutral` are KL(base | model) per predicted token, in nats. `tails` counts features of the tuned
    model's pair crosscoder above each cut with this model in the tuned one's place, and under "measured" of how many;
    None where there is no such crosscoder.
    """

    tuned: str
    name: str
    kind: str
    alpha: float | None
    kl_task: float
    kl_neutral: float
    weights: Mapping[str, float]
    """Relative change by group of tensors, and under "all"."""
    activations: Sequence[float]
    """Change as a share of the base's variance, after every block."""
    tails: Mapping[str, int] | None
    crossed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of the control, which has no crosscoder of its own: the same in the place of every tuned model."""

    def read_in(self, place: str) -> Mapping[str, int] | None:
        """Its tail through the pair crosscoder of one tuned model; None where it was not read there."""
        return self.tails if place == self.tuned else self.crossed.get(place)


@dataclass(frozen=True)
class DriftPanel:
    """All rows, the model that moved least on the tasks, and all models at its KL."""

    least: str
    rows: Sequence[DriftRow]
    equal: EqualDrift
    samples: Mapping[str, int] = field(default_factory=dict)
    """What the control was trained on: right answers `kept`, of how many `drawn`, for how many `prompts`."""

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
        counted = [row.tails for row in self.rows if row.tails is not None]
        return min((cut for cut in counted[0] if cut != "measured"), key=float, default=None) if counted else None

    def of(self, tuned: str, *kinds: str) -> list[DriftRow]:
        """The rows of one tuned model that are of these kinds, by rising KL."""
        found = [row for row in self.rows if row.tuned == tuned and row.kind in kinds]
        return sorted(found, key=lambda row: row.kl_task)
