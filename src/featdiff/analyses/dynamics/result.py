"""What the stage `dynamics` finds of one tuned model: how far its checkpoints agree, under every alignment."""

from dataclasses import dataclass

from featdiff.config.evidence import AlignmentName

Unknown = float | None
Shares = tuple[tuple[Unknown, ...], ...]


@dataclass(frozen=True)
class CheckpointOverlap:
    """The most specific features at every checkpoint, compared under one alignment (Fig. 2, 8-11)."""

    alignment: AlignmentName
    checkpoints: tuple[str, ...]
    seeds: int
    ranked: tuple[tuple[int, ...], ...]
    """Indices of the top k of each checkpoint, best first."""
    overlap: Shares
    """Shared part of the top k of each two checkpoints, with the first seed."""
    chance: float
    """What two random sets of k would share."""
    noise_floor: Unknown
    """The mean of `floors`."""
    floors: tuple[Unknown, ...] | None
    """Overlap of each checkpoint with itself under another seed; None with one seed."""
    between_seeds: Shares | None
    """Mean overlap of each checkpoint under one seed with each under another."""
    relative: Shares | None
    """Overlap divided by the noise floor; None where that was not measured."""
    counted: tuple[int, ...]
    """Features of the top k of each checkpoint whose score is known beyond noise."""
    rank_shift: Shares
    """Places climbed by these from each checkpoint to the next, best first; None where a feature left the top k."""

    @property
    def top(self) -> int:
        """k, or all features where fewer are alive."""
        return len(self.ranked[0])

    @property
    def adjacent(self) -> list[Unknown]:
        """Overlap of each checkpoint with the next."""
        return [row[c + 1] for c, row in enumerate(self.overlap[:-1])]

    @property
    def adjacent_relative(self) -> list[Unknown]:
        """The same divided by the noise floor."""
        return [row[c + 1] for c, row in enumerate((self.relative or ())[:-1])]

    @property
    def ends_relative(self) -> Unknown:
        """Overlap of the first checkpoint with the last, divided by the noise floor."""
        return None if self.relative is None else self.relative[0][-1]


@dataclass(frozen=True)
class Dynamics:
    """`<tuned model>.json`."""

    by_alignment: dict[AlignmentName, CheckpointOverlap]
    missing: dict[AlignmentName, str]
    """Why the checkpoints could not be compared under another alignment."""

    @property
    def main(self) -> CheckpointOverlap:
        """Under the joint alignment, or the first of the study where there is no joint crosscoder."""
        return self.by_alignment.get("joint") or next(iter(self.by_alignment.values()))
