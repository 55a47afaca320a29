"""Figures of the interventions: effects against random features of the same activity (Tables 2-5), and dose curves."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featdiff.analyses.intervention.result import DoseCurve, TaskEffect, by_edit
from featdiff.files import as_json
from featdiff.intervention.effect_records import ControlDraws, FullEffectRecord
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.style import BLUE, INK, LINE, MUTED, TITLE, canvas, fitted, styled
from featdiff.presentation.words import edited, listing, plural, points

SPREAD = 0.22
"""Half the height over which control draws are spread, where a task takes 1."""


def pictures(effects: Sequence[TaskEffect], curves: Sequence[DoseCurve]) -> Iterator[Picture]:
    """One figure for each edit, then one for each model and set of items whose dose was varied."""
    for position, ((model, edit, _), group) in enumerate(by_edit(effects).items()):
        yield _effects(position, model, edit, group)
    for position, curve in enumerate(curves):
        yield _doses(position, curve)


def _effects(position: int, model: str, edit: str, effects: Sequence[TaskEffect]) -> Picture:
    done = f"{plural(effects[0].features, 'feature')} {edited(edit)}"
    parts = [
        f"{effect.task} {points(one.change)} points against {points(one.control.mean)} by random features"
        for effect in effects
        if (one := effect.sets["held_out"]).n
    ]
    return Picture(
        name=file_name("effects", position, model, edit),
        section="effects",
        figure=effect_plot(effects, f"{model}: {done}"),
        title=f"{done} in {model}",
        finding=f"{done} in {model}, held-out items: {'; '.join(parts)}.",
        numbers={"effects": [as_json(effect) for effect in effects]},
    )


def _doses(position: int, curve: DoseCurve) -> Picture:
    where = "all items" if curve.measured_on == "all" else f"{curve.measured_on} items"
    title = f"{curve.model}: dose and accuracy, {where}"
    steps = listing([f"{points(v)} at {dose:g}" for dose, v in zip(curve.doses, curve.selected, strict=True)])
    random = listing([points(value) for value in curve.control])
    return Picture(
        name=file_name("doses", position, curve.model, curve.measured_on),
        section="doses",
        figure=dose_plot(curve, title),
        title=title,
        finding=(
            f"Mean change on {where} of {plural(curve.tasks, 'task')} with the selected features of {curve.model} "
            f"set to multiples of their maximum, in points: {steps}"
            f"{f'; features matched by activity {random}' if random else ''}."
        ),
        numbers=asdict(curve),
    )


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


@styled
def dose_plot(curve: DoseCurve, title: str) -> Figure:
    """Mean change of accuracy in points; the band is that of features matched by activity, thin lines are tasks."""
    figure, axes = canvas(2.9)
    axes.axhline(0, color=INK, linewidth=0.8)
    if curve.control:
        low, high, mean = (
            [100 * value for value in part] for part in (curve.control_low, curve.control_high, curve.control)
        )
        axes.fill_between(curve.doses, low, high, color=MUTED, alpha=0.25, linewidth=0)
        axes.plot(curve.doses, mean, "o--", color=MUTED, markersize=4, label="random features")
    for values in curve.by_task.values():
        axes.plot(curve.doses, [100 * value for value in values], color=LINE, linewidth=0.8, zorder=1)
    axes.plot(curve.doses, [100 * v for v in curve.selected], "D-", color=BLUE, markersize=5, label="selected features")
    axes.set_xlabel("multiples of each feature's maximum")
    axes.set_ylabel("change of accuracy, points")
    axes.set_title(fitted(title, TITLE))
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8.5)
    return figure
