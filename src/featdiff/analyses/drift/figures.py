"""The tail against drift: is a larger tail more than a longer way?"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featdiff.analyses.drift.result import DriftPanel
from featdiff.presentation.style import WIDTH, canvas, colour_of, styled

MIXED = ("interpolation", "matched", "model")


@styled
def drift_plot(panel: DriftPanel, models: Sequence[str]) -> Figure:
    """Features above the lowest cut by KL on the tasks: checkpoints as a line, interpolations dashed, models larger.

    With a control, which is read through every crosscoder, each crosscoder has a panel of its own.
    """
    coloured = [*models, *panel.controls]
    if not panel.controls:
        figure, axes = canvas(3.2)
        for tuned in panel.places:
            _way(axes, panel, tuned, tuned, colour_of(tuned, coloured))
        _labelled(axes, panel, "Tail against drift (one model each)")
        return figure
    figure = Figure(figsize=(WIDTH, 2.6 * len(panel.places)), layout="constrained")
    for axes, place in zip(figure.subplots(len(panel.places), sharex=True, sharey=True), panel.places, strict=True):
        for tuned in (place, *panel.controls):
            _way(axes, panel, tuned, place, colour_of(tuned, coloured))
        _labelled(axes, panel, f"Read through {place}'s crosscoder (one model each)")
        axes.label_outer()
    return figure


def _way(axes: Axes, panel: DriftPanel, tuned: str, place: str, colour: str) -> None:
    ways = (("training", "-", "o", ("checkpoint", "model")), ("mixed with the base", "--", "x", MIXED))
    for label, line, marker, kinds in ways:
        points = _points(panel, tuned, place, *kinds)
        if points:
            look = {"marker": marker, "color": colour, "clip_on": False}
            axes.plot(*zip(*points, strict=True), line, label=f"{tuned}, {label}", **look)
    axes.plot(*zip(*_points(panel, tuned, place, "model"), strict=True), "o", markersize=9, color=colour, clip_on=False)


def _labelled(axes: Axes, panel: DriftPanel, title: str) -> None:
    axes.set_xlabel("KL to the base on the tasks (nats per token)")
    axes.set_ylabel(f"features above {panel.cut}")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title)
    axes.legend(frameon=False, fontsize=8)


def _points(panel: DriftPanel, tuned: str, place: str, *kinds: str) -> list[tuple[float, int]]:
    cut = panel.cut
    read = ((row.kl_task, row.read_in(place)) for row in panel.of(tuned, *kinds))
    return [(kl, tails[cut]) for kl, tails in read if tails is not None and cut]
