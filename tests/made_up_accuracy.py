"""Accuracies made up by hand, for tests of how they are shown."""

from featdiff.analyses.accuracy.result import Accuracy, Gain


def made_up(value: float, gain: tuple[float, float] | None = None, role: str = "far", half: float = 0.05) -> Accuracy:
    """A cell of Table 1; `gain` is the interval of what a tuned model has over the base."""
    return Accuracy(
        value=value,
        n=400,
        interval=(value - half, value + half),
        acc=value,
        acc_norm=value,
        histogram=(100, 100, 100, 100),
        repeats=None,
        gain=gain and Gain(sum(gain) / 2, gain),
        flips=None,
        sets=None,
        churn=gain and "gained 7 of 400",
        constant_baseline=0.25,
        role=role,
        note="",
    )
