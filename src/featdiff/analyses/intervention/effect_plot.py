"""Tables 2-5 as a figure: the selected features compared with random ones of the same activity."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featdiff.intervention.effect_records import ControlDraws, FullEffectRecord
from featdiff.presentation.style import BLUE, INK, LINE, MUTED, TITLE, canvas, fitted, styled

SPREAD = 0.22
"""Half the height over which control draws are spread, where a task takes 1."""


@styled
def effect_plot(effects: Sequence[FullEffectRecord], title: str) -> Figure:
    """Change of accuracy on held-out critical items in points, a row for each task.

    Dots are draws of random features; the diamond is the selected set on the same items, with its interval; the ring
    is the selected set on all items of the task.
    """
    figure, axes = canvas(1.5 + 0.52 * len(effects))
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    for row, effect in enumerate(effects):
        axes.axhline(row + 0.5, color=LINE, linewidth=0.6)
        _controls(axes, row, effect.sets["held_out"].control)
        _selected(axes, row, effect)
    labels = [f"{fitted(effect.task)}\nn = {effect.sets['held_out'].n}" for effect in effects]
    axes.set_yticks(range(len(effects)), labels)
    axes.set_ylim(len(effects) - 0.5, -0.5)
    axes.set_xlabel("change of accuracy on held-out items, points")
    axes.set_title(fitted(title, TITLE))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    _legend(figure, axes)
    return figure


def _controls(axes: Axes, row: int, control: ControlDraws) -> None:
    if control.mean is None:
        return
    draws = max(len(control.values) - 1, 1)
    heights = [
        row + 0.08 + SPREAD * ((2 * (7 * draw % (draws + 1)) / draws) - 1) for draw in range(len(control.values))
    ]
    axes.scatter(
        [100 * value for value in control.values], heights, s=9, color=MUTED, alpha=0.45, linewidths=0, zorder=2
    )
    bounds = [100 * bound for bound in control.interval if bound is not None]
    axes.plot(bounds, [row + 0.08] * len(bounds), color=MUTED, linewidth=1.6, zorder=2)
    axes.plot([100 * control.mean], [row + 0.08], "|", color=MUTED, markersize=9, markeredgewidth=1.8, zorder=2)


def _selected(axes: Axes, row: int, effect: FullEffectRecord) -> None:
    part, whole = effect.sets["held_out"], effect.sets["all"]
    if part.change is not None:
        axes.plot([100 * bound for bound in part.interval], [row - 0.24] * 2, color=BLUE, linewidth=2, zorder=3)
        axes.plot([100 * part.change], [row - 0.24], "D", color=BLUE, markersize=6, zorder=4)
    if whole.change is not None:
        axes.plot([100 * whole.change], [row + 0.36], "o", color=INK, fillstyle="none", markersize=5, zorder=4)


def _legend(figure: Figure, axes: Axes) -> None:
    (selected,) = axes.plot([], [], "D-", color=BLUE, linewidth=2, markersize=6, label="selected features")
    (random,) = axes.plot([], [], "o-", color=MUTED, linewidth=1.6, markersize=3, label="random features")
    (whole,) = axes.plot([], [], "o", color=INK, fillstyle="none", markersize=5, label="selected, all items")
    figure.legend(
        handles=[selected, random, whole],
        loc="outside lower left",
        ncols=3,
        frameon=False,
        fontsize=8.5,
        columnspacing=1.2,
    )
