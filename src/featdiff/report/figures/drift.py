"""The tail against drift: is a larger tail more than a longer way?"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from featdiff.report.drift import DriftPanel
from featdiff.report.figures.style import canvas, colour_of, styled

MIXED = ("interpolation", "matched", "model")


@styled
def drift_plot(panel: DriftPanel, models: Sequence[str]) -> Figure:
    """Features above the lowest cut by KL on the tasks: checkpoints as a line, interpolations dashed, models larger."""
    figure, axes = canvas(3.2)
    for tuned in dict.fromkeys(row.tuned for row in panel.rows):
        colour = colour_of(tuned, models)
        ways = (("training", "-", "o", ("checkpoint", "model")), ("mixed with the base", "--", "x", MIXED))
        for label, line, marker, kinds in ways:
            points = _points(panel, tuned, *kinds)
            if points:
                axes.plot(*zip(*points, strict=True), line, marker=marker, color=colour, label=f"{tuned}, {label}")
        axes.plot(*zip(*_points(panel, tuned, "model"), strict=True), "o", markersize=9, color=colour)
    axes.set_xlabel("KL to the base on the tasks (nats per token)")
    axes.set_ylabel(f"features above {panel.cut}")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_title("Tail against drift (one model each)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _points(panel: DriftPanel, tuned: str, *kinds: str) -> list[tuple[float, int]]:
    cut = panel.cut
    return [(row.kl_task, row.tails[cut]) for row in panel.of(tuned, *kinds) if row.tails is not None and cut]
