"""Figures of the interventions: effects against random features of the same activity (Tables 2-5), and dose curves."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from matplotlib.figure import Figure

from featdiff.analyses.intervention.effect_plot import effect_plot
from featdiff.analyses.intervention.result import DoseCurve, TaskEffect, by_edit
from featdiff.files import as_json
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.style import BLUE, INK, LINE, MUTED, TITLE, canvas, fitted, styled
from featdiff.presentation.words import edited, listing, plural, points


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
