"""Dose curves: how accuracy changes with the value that features are set to."""

from matplotlib.figure import Figure

from featdiff.analyses.intervention.result import DoseCurve
from featdiff.presentation.style import BLUE, INK, LINE, MUTED, TITLE, canvas, fitted, styled


@styled
def dose_curve(curve: DoseCurve, title: str) -> Figure:
    """Mean change of accuracy in points; the band is that of features matched by activity, thin lines are tasks."""
    figure, axes = canvas(2.9)
    axes.axhline(0, color=INK, linewidth=0.8)
    if curve.control:
        low, high = ([100 * value for value in part] for part in (curve.control_low, curve.control_high))
        axes.fill_between(curve.doses, low, high, color=MUTED, alpha=0.25, linewidth=0)
        axes.plot(
            curve.doses, [100 * v for v in curve.control], "o--", color=MUTED, markersize=4, label="random features"
        )
    for values in curve.by_task.values():
        axes.plot(curve.doses, [100 * value for value in values], color=LINE, linewidth=0.8, zorder=1)
    axes.plot(curve.doses, [100 * v for v in curve.selected], "D-", color=BLUE, markersize=5, label="selected features")
    axes.set_xlabel("multiples of each feature's maximum")
    axes.set_ylabel("change of accuracy, points")
    axes.set_title(fitted(title, TITLE))
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8.5)
    return figure
