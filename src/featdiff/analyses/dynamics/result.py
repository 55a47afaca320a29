"""What the report says of checkpoints: how far their most specific features are the same, under each alignment."""

from collections.abc import Sequence
from dataclasses import dataclass

from featdiff.attribution import Trajectory

Unknown = int | float | None
Shares = Sequence[Sequence[Unknown]]

TITLES = {
    "joint": "One crosscoder over all checkpoints (joint)",
    "matched": "A crosscoder for each checkpoint, features matched (matched)",
    "swap": "Checkpoints in the tuned model's place (swap)",
    "same_seed_index": "A crosscoder for each checkpoint, by index: the paper's (same_seed_index)",
}

READINGS = {
    "joint": (
        "One crosscoder reads the base and all checkpoints, so a feature is the same one at each of them: this shows "
        "how each checkpoint's share of a feature grows or fades. It cannot show what this dictionary, which all "
        "checkpoints compete for, did not learn."
    ),
    "matched": (
        "Each checkpoint has a crosscoder with the base of its own, and features are paired by the direction of their "
        "decoders: this shows whether features that were learned independently are the same. It cannot tell a feature "
        "that is gone from one that turned, split, or was not found again, which is why it is read against its floor."
    ),
    "swap": (
        "One crosscoder of the base and the tuned model is read with each checkpoint in the tuned model's place: this "
        "shows when the features that training ends with came about. It cannot show those that came and went before."
    ),
    "same_seed_index": (
        "The paper's comparison: a crosscoder for each checkpoint, all begun from the same weights and trained on the "
        "same tokens, and the same index taken for the same feature. It shows how far training keeps indices in place, "
        "which depends on the seed; it cannot show that features persist. Above 1 once it is divided by its floor, two "
        "checkpoints agree more than one checkpoint does with itself under another seed."
    ),
}


@dataclass(frozen=True)
class DynamicsPanel:
    """How one paradigm's most specific features change over its checkpoints (Fig. 2, 8-11), under one alignment."""

    paradigm: str
    checkpoints: Sequence[str]
    alignment: str
    overlap: Shares
    """Shared part of the top k of each two checkpoints, with the first seed."""
    chance: float
    noise_floor: Unknown
    rank_shift: Shares
    """Places climbed from each checkpoint to the next by the features that are ranked, best first; None where a feature
    left the top k."""
    top: int
    """k, or all features where fewer are alive."""
    seeds: int = 1
    floors: Sequence[Unknown] | None = None
    """Overlap of each checkpoint with itself under another seed; None with one seed."""
    relative: Shares | None = None
    """Overlap divided by the noise floor; None where that was not measured."""

    @staticmethod
    def of(trajectory: Trajectory, paradigm: str) -> "DynamicsPanel":
        """The drawable part of a trajectory."""
        shifts = [row[:n] for row, n in zip(trajectory.rank_shift.tolist(), trajectory.counted, strict=False)]
        return DynamicsPanel(
            paradigm=paradigm,
            checkpoints=trajectory.checkpoints,
            alignment=trajectory.alignment,
            overlap=trajectory.overlap.tolist(),
            chance=trajectory.chance,
            noise_floor=trajectory.noise_floor,
            rank_shift=[[None if shift != shift else shift for shift in row] for row in shifts],
            top=trajectory.ranked.shape[1],
            seeds=trajectory.seeds,
            floors=None if trajectory.floors is None else trajectory.floors.tolist(),
            relative=None
            if trajectory.relative is None
            else [[None if share != share else share for share in row] for row in trajectory.relative.tolist()],
        )

    @property
    def adjacent(self) -> Sequence[Unknown]:
        """Overlap of each checkpoint with the next."""
        return [self.overlap[c][c + 1] for c in range(len(self.checkpoints) - 1)]

    @property
    def adjacent_relative(self) -> Sequence[Unknown]:
        """The same divided by the noise floor."""
        return [] if self.relative is None else [self.relative[c][c + 1] for c in range(len(self.checkpoints) - 1)]

    @property
    def ends_relative(self) -> Unknown:
        """Overlap of the first checkpoint with the last, divided by the noise floor."""
        return None if self.relative is None else self.relative[0][-1]
