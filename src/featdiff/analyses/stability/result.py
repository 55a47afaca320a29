"""What the stage `stability` finds of one lineup."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OverSeeds:
    """A count under every seed, with its mean and standard deviation (None with one seed)."""

    values: tuple[float, ...]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class LineupStability:
    """One lineup under several seeds: its tails, and how many of the first seed's features are found again."""

    seeds: tuple[int, ...]
    acceptance: float
    """Cosine above which two features match."""
    alive: int
    needed: int
    """Other seeds in which a stable feature is matched."""
    stable: int | None
    """Alive features that are; None where there are too few seeds to tell."""
    curve: dict[str, float] | None
    """Share of alive features that are stable, by the cosine that is asked for."""
    pw_mcc: tuple[float, ...]
    """Mean cosine of a feature with its nearest under each other seed."""
    tails: dict[str, dict[str, OverSeeds]]
    """By model and cut, and under "alive" all alive features."""
    stable_tails: dict[str, dict[str, int]] | None
    crosscoders: tuple[str, ...]


@dataclass(frozen=True)
class ScoreOverSeeds:
    """The score of each of some features for one model, over the seeds in which it is matched."""

    model: str
    mean: tuple[float | None, ...]
    deviation: tuple[float | None, ...]


@dataclass(frozen=True)
class FeatureStability:
    """Some features of a lineup under its other seeds."""

    other_seeds: int
    needed: int
    matched_in: tuple[int, ...]
    """In how many other seeds each is matched."""
    score: ScoreOverSeeds

    @property
    def stable(self) -> int | None:
        """How many are matched in at least `needed` others; None where there are too few seeds to tell."""
        if self.other_seeds < self.needed:
            return None
        return sum(count >= self.needed for count in self.matched_in)
