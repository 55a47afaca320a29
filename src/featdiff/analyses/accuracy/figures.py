"""Table 1 as a picture: accuracy per task and model, with intervals and the constant answer."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featdiff.analyses.accuracy.result import Accuracy
from featdiff.presentation.style import INK, canvas, colour_of, fitted, styled

BAR = 0.8
"""Height of a task's group of bars, where a task takes 1."""


@styled
def accuracy_bars(accuracy: Mapping[str, Mapping[str, Accuracy]], models: Sequence[str]) -> Figure:
    """Horizontal bars, tasks from the top; the vertical tick in each group is what one constant answer would score."""
    figure, axes = canvas(0.9 + len(accuracy) * (0.12 + 0.17 * len(models)))
    for row, cells in enumerate(accuracy.values()):
        _task(axes, row, cells, models)
    axes.set_yticks(range(len(accuracy)), [_label(task, cells) for task, cells in accuracy.items()])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy, %")
    axes.tick_params(axis="y", length=0)
    _legend(figure, axes, models)
    return figure


def _task(axes: Axes, row: int, cells: Mapping[str, Accuracy], models: Sequence[str]) -> None:
    height = BAR / len(models)
    for position, model in enumerate(models):
        y, cell = row - BAR / 2 + (position + 0.5) * height, cells[model]
        axes.barh(y, 100 * cell.value, height * 0.86, color=colour_of(model, models), alpha=0.85)
        axes.plot([100 * bound for bound in cell.interval], [y, y], color=INK, linewidth=1.4)
    baseline = 100 * next(iter(cells.values())).constant_baseline
    axes.plot(
        [baseline, baseline], [row - BAR / 2 - 0.04, row + BAR / 2 + 0.04], color=INK, linewidth=1.4, linestyle=":"
    )


def _label(task: str, cells: Mapping[str, Accuracy]) -> str:
    cell = next(iter(cells.values()))
    return f"{fitted(task)}\n{cell.role}, n = {cell.n:,}"


def _legend(figure: Figure, axes: Axes, models: Sequence[str]) -> None:
    handles = [axes.barh(0, 0, color=colour_of(model, models), alpha=0.85, label=fitted(model)) for model in models]
    (constant,) = axes.plot([], [], color=INK, linewidth=1.4, linestyle=":", label="constant answer")
    figure.legend(handles=[*handles, constant], loc="outside upper left", ncols=min(len(models) + 1, 4), frameon=False)
