"""Accuracies with their intervals, and what tuned models gain over the base item by item."""

from collections import Counter
from collections.abc import Mapping
from typing import get_args

from featdiff.analyses.accuracy.result import Accuracy, Gain
from featdiff.config.study import BASE, TaskSettings
from featdiff.evaluation.outcomes import Outcomes, SetName
from featdiff.evaluation.repeated_sampling import gain_over, share_interval
from featdiff.evaluation.results import TaskResult


def accuracies(results: Mapping[str, TaskResult], task: TaskSettings, confidence: float) -> dict[str, Accuracy]:
    """Every model on one task, by name, and tuned ones compared with the base on the same items.

    Args:
        results: by model, the base among them.
        task: its role is kept.
        confidence: of all intervals; churn is tested at 1 - confidence.
    """
    outcomes, base = Outcomes.of(dict(results)), results[BASE]
    return {name: _accuracy(base, result, outcomes, name, task, confidence) for name, result in results.items()}


def _accuracy(
    base: TaskResult, result: TaskResult, outcomes: Outcomes, name: str, task: TaskSettings, confidence: float
) -> Accuracy:
    share = share_interval(result.shares, confidence=confidence)
    choices, tuned = result.kind == "multiple_choice", name != BASE
    return Accuracy(
        value=share.value,
        n=len(result.samples),
        interval=(share.low, share.high),
        acc=result.accuracy_by("acc") if choices else None,
        acc_norm=result.accuracy_by("acc_norm") if choices else None,
        histogram=tuple(result.histogram) if choices else None,
        repeats=None if choices else len(result.samples[0].rights),
        gain=_gain(base, result, confidence) if tuned else None,
        flips=outcomes.mcnemar(BASE, name) if tuned else None,
        sets=_sets(outcomes, name) if tuned else None,
        churn=outcomes.churn(BASE, name, alpha=1 - confidence) if tuned else None,
        constant_baseline=base.constant_baseline,
        role=task.role,
        note=base.note,
    )


def _gain(base: TaskResult, result: TaskResult, confidence: float) -> Gain:
    gain = gain_over(base, result, confidence=confidence)
    return Gain(gain.value, (gain.low, gain.high))


def _sets(outcomes: Outcomes, name: str) -> dict[str, int]:
    counts = Counter(outcomes.sets(BASE, name))
    return {one: counts[one] for one in get_args(SetName)}
