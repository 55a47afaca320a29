"""Every figure of a report: what is drawn, the finding in words, and the numbers behind it."""

from collections.abc import Iterator
from dataclasses import asdict

from featdiff.analyses.drift.pictures import drift_pictures
from featdiff.analyses.dynamics.text import dynamics_pictures
from featdiff.analyses.sensitivity.pictures import sensitivity_pictures
from featdiff.presentation.heatmap import share_heatmap
from featdiff.presentation.picture import Picture
from featdiff.presentation.style import BLUE
from featdiff.presentation.words import count, listing, plural
from featdiff.report.data import ReportData, SelectionPanel


def pictures(data: ReportData) -> list[Picture]:
    """All figures for which the study has data, in the order of the page, under distinct names."""
    found: list[Picture] = []
    for picture in _all(data):
        names = {other.name for other in found}
        assert picture.name not in names, f"two figures are called {picture.name}"
        found.append(picture)
    return found


def _all(data: ReportData) -> Iterator[Picture]:
    models = data.models
    yield from drift_pictures(data.drift, models)
    yield from dynamics_pictures(data.dynamics, models)
    if data.selection and data.selection.tasks:
        yield _tasks(data.selection)
    yield from sensitivity_pictures(data.sensitivity)


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
