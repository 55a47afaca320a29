"""What an edit shows over all tasks together, and what its many tests are worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featdiff.intervention.effects import ControlName, control_interval, flips_record, interval_record, or_null
from featdiff.stats import (
    Direction,
    Draws,
    Flips,
    Interval,
    Verdict,
    largest_p,
    stratified_bootstrap,
    verdict,
)


@dataclass(frozen=True, eq=False)
class TaskChange:
    """What one task has to say on a claim: its held-out critical items, and the change under each deciding control."""

    flips: Flips
    controls: Mapping[ControlName, Draws]


@dataclass(frozen=True, eq=False)
class PooledEffect:
    """One edit of one model over several tasks, which count alike: the mean of their changes, and of their controls."""

    change: Interval
    """With its bootstrap interval, items drawn within tasks."""
    flips: Flips
    """Summed over tasks."""
    controls: Mapping[ControlName, Draws]
    """The mean change under the i-th control of every task."""
    p: float
    verdict: Verdict

    def to_json(self) -> dict[str, object]:
        """The change, the controls by kind, p and verdict."""
        return {
            "n": self.flips.n,
            "change": or_null(self.change.value),
            "interval": [self.change.low, self.change.high],
            "flips": flips_record(self.flips),
            "controls": {
                kind: interval_record(control_interval(draws, self.change.confidence), len(draws))
                for kind, draws in self.controls.items()
            },
            "p": self.p,
            "verdict": self.verdict,
        }


def pooled_effect(
    parts: Sequence[TaskChange], expected: Direction, *, resamples: int, confidence: float, seed: int
) -> PooledEffect:
    """Take the tasks of one edit together: a single test, which no number of tasks makes easier to pass.

    Tasks without held-out items do not count. Each control's draws must be as many in every task.
    """
    present = [part for part in parts if part.flips.n]
    counts = [part.flips for part in present]
    flips = Flips(sum(one.n for one in counts), sum(one.lost for one in counts), sum(one.gained for one in counts))
    change = stratified_bootstrap(counts, resamples=resamples, confidence=confidence, seed=seed)
    if not present:
        return PooledEffect(change, flips, {}, 1.0, "underpowered")
    controls: dict[ControlName, Draws] = {
        kind: np.mean([part.controls[kind] for part in present], axis=0) for kind in present[0].controls
    }
    deciding = list(controls.values())
    found = verdict(change, flips, deciding, expected=expected)
    return PooledEffect(change, flips, controls, largest_p(change.value, deciding, expected), found)
