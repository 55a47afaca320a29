"""Effect of one edit pooled over tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featdiff.config.intervention import ControlName, InterventionSettings
from featdiff.intervention.effect_records import FullEffectRecord, PooledRecord, SetRecord
from featdiff.intervention.effects import (
    HEADLINE,
    MATCHED,
    ItemSetName,
    control_interval,
    control_record,
    deciding_kinds,
    flips_record,
    or_null,
)
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
    """One task's changes: items flipped by the edit, and the change under each draw of the deciding controls."""

    flips: Flips
    controls: Mapping[ControlName, Draws]


@dataclass(frozen=True, eq=False)
class PooledEffect:
    """Mean effect of one edit of one model over several tasks, which count alike, with the mean of their controls."""

    change: Interval
    """With its bootstrap interval, items drawn within tasks."""
    flips: Flips
    """Summed over tasks."""
    controls: Mapping[ControlName, Draws]
    """The mean change under the i-th control of every task."""
    p: float
    verdict: Verdict

    def record(self) -> PooledRecord:
        """The pooled effect as it is stored."""
        return PooledRecord(
            n=self.flips.n,
            change=or_null(self.change.value),
            interval=[self.change.low, self.change.high],
            flips=flips_record(self.flips),
            controls={
                kind: control_record(control_interval(draws, self.change.confidence), len(draws))
                for kind, draws in self.controls.items()
            },
            p=self.p,
            verdict=self.verdict,
        )


def task_change(record: SetRecord, confidence: float) -> TaskChange:
    """One task's part in a pooled effect, from the stored effect on one set of its items."""
    others: dict[ControlName, Draws] = {kind: np.array(one.values) for kind, one in record.controls.items()}
    controls: dict[ControlName, Draws] = {MATCHED: np.array(record.control.values)}
    controls |= {kind: others[kind] for kind in deciding_kinds(others, confidence)}
    return TaskChange(Flips(record.n, record.flips.lost, record.flips.gained), controls)


def pool(
    effects: Sequence[FullEffectRecord], settings: InterventionSettings, seed: int, items: ItemSetName = HEADLINE
) -> PooledRecord:
    """Pool the stored effects of one edit on several tasks, by one set of their items."""
    confidence = settings.confidence
    parts = [task_change(one.sets[items], confidence) for one in effects]
    found = pooled_effect(parts, effects[0].expected, resamples=settings.bootstrap, confidence=confidence, seed=seed)
    return found.record()


def pooled_effect(
    parts: Sequence[TaskChange], expected: Direction, *, resamples: int, confidence: float, seed: int
) -> PooledEffect:
    """Pool the tasks of one edit into a single test, which no number of tasks makes easier to pass.

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
