"""Every figure of a report: what is drawn, the finding in words, and the numbers behind it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from featdiff.analyses.accuracy.figures import accuracy_bars
from featdiff.analyses.editing_methods.figures import ways_pictures
from featdiff.analyses.intervention.figures import effect_plot
from featdiff.analyses.intervention.text import causal_pictures
from featdiff.analyses.ownership.figures_specificity import specificity_histogram
from featdiff.analyses.ownership.text import tail_pictures
from featdiff.analyses.quality.figures import quality_dots
from featdiff.analyses.sensitivity.pictures import sensitivity_pictures
from featdiff.presentation.heatmap import share_heatmap
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.style import BLUE, colour_of
from featdiff.presentation.words import count, edited, listing, percent, plural, points
from featdiff.report.data import EffectRow, ReportData, SelectionPanel, SpecificityPanel, Unknown
from featdiff.report.findings import groups


def pictures(data: ReportData) -> list[Picture]:
    """All figures for which the study has data, in the order of the page, under distinct names."""
    found: list[Picture] = []
    for picture in _all(data):
        names = {other.name for other in found}
        assert picture.name not in names, f"two figures are called {picture.name}"
        found.append(picture)
    return found


def _all(data: ReportData) -> Iterator[Picture]:
    models = [model.name for model in data.models]
    if data.accuracy:
        yield _accuracy(data, models)
    if data.quality:
        yield _quality(data)
    for position, panel in enumerate(data.specificity):
        largest = max(max(other.counts) for other in data.specificity if other.score == panel.score)
        yield _specificity(panel, position, models, largest)
    yield from tail_pictures(data.tails, models)
    if data.selection and data.selection.tasks:
        yield _tasks(data.selection)
    for position, ((model, edit, _), effects) in enumerate(groups(data.effects).items()):
        yield _effects(position, model, edit, effects)
    yield from causal_pictures(data.causal)
    yield from ways_pictures(data.ways)
    yield from sensitivity_pictures(data.sensitivity)


def _accuracy(data: ReportData, models: Sequence[str]) -> Picture:
    best = [
        f"{task}: {_per_model({model: cell.value for model, cell in cells.items()})}"
        for task, cells in data.accuracy.items()
    ]
    numbers = {task: {model: asdict(cell) for model, cell in cells.items()} for task, cells in data.accuracy.items()}
    finding = f"Accuracy in % with {100 * data.confidence:g} % intervals. {'; '.join(best)}."
    return Picture(
        "accuracy", "accuracy", accuracy_bars(data.accuracy, models), "Accuracy by task and model", finding, numbers
    )


def _quality(data: ReportData) -> Picture:
    rows = [
        f"{row.lineup} on {row.measured_on} ({count(row.tokens)} tokens): {_per_model(row.variance_explained)}"
        for row in data.quality
    ]
    numbers = {"rows": [asdict(row) for row in data.quality]}
    return Picture(
        "quality",
        "quality",
        quality_dots(data.quality),
        "Fit of the crosscoders",
        f"Variance explained in %: {'; '.join(rows)}.",
        numbers,
    )


def _specificity(panel: SpecificityPanel, position: int, models: Sequence[str], largest: int) -> Picture:
    tails = listing([f"{plural(number, 'feature')} above {cut}" for cut, number in panel.tails.items()])
    return Picture(
        name=file_name(panel.score, position, panel.lineup, panel.model),
        section=panel.score,
        figure=specificity_histogram(panel, colour_of(panel.model, models), largest),
        title=f"{panel.score} of {panel.model} in the crosscoder {panel.lineup}",
        finding=(
            f"{panel.score} of {panel.model}, crosscoder of {listing(panel.aligned)}: {tails}, "
            f"of {count(panel.alive)} alive ({count(panel.features)} in all)."
        ),
        numbers=asdict(panel),
    )


def _tasks(selection: SelectionPanel) -> Picture:
    counts = listing([f"{count(number)} in {task}" for task, number in selection.per_task.items()])
    return Picture(
        name="selection-overlap",
        section="selection",
        figure=share_heatmap(selection.overlap, selection.tasks, BLUE, "Jaccard overlap of selected features", "task"),
        title="Overlap of the selected features between tasks",
        finding=f"Selected: {counts}; {plural(len(selection.chosen), 'feature')} in the final set ({selection.rule}).",
        numbers=asdict(selection),
    )


def _effects(position: int, model: str, edit: str, effects: Sequence[EffectRow]) -> Picture:
    title = f"{plural(effects[0].features, 'feature')} {edited(edit)} in {model}"
    parts = [
        f"{effect.task} {points(change.change)} points against {points(effect.control.mean)} by random features"
        for effect in effects
        if (change := effect.sets.get(effect.control.measured_on)) and change.n
    ]
    where = effects[0].control.measured_on.replace("_", "-")
    return Picture(
        name=file_name("effects", position, model, edit),
        section="effects",
        figure=effect_plot(effects, f"{model}: {plural(effects[0].features, 'feature')} {edited(edit)}"),
        title=title,
        finding=f"{title}, {where} items: {'; '.join(parts)}.",
        numbers={"effects": [asdict(effect) for effect in effects]},
    )


def _per_model(shares: Mapping[str, Unknown]) -> str:
    return ", ".join(f"{model} {percent(share)}" for model, share in shares.items())
