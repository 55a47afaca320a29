"""The dose curves of a report, with their finding in words and the numbers behind them."""

from collections.abc import Iterator
from dataclasses import asdict

from featdiff.analyses.intervention.figures_doses import dose_curve
from featdiff.analyses.intervention.result import CausalPanel
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.words import listing, plural, points


def causal_pictures(panel: CausalPanel) -> Iterator[Picture]:
    """One curve for each model and set of items."""
    for position, curve in enumerate(panel.doses):
        where = "all items" if curve.measured_on == "all" else f"{curve.measured_on} items"
        title = f"{curve.model}: dose and accuracy, {where}"
        steps = listing([f"{points(v)} at {dose:g}" for dose, v in zip(curve.doses, curve.selected, strict=True)])
        random = listing([points(value) for value in curve.control])
        beside = f"; features matched by activity {random}" if random else ""
        yield Picture(
            name=file_name("doses", position, curve.model, curve.measured_on),
            section="doses",
            figure=dose_curve(curve, title),
            title=title,
            finding=(
                f"Mean change on {where} of {plural(curve.tasks, 'task')} with the selected features of {curve.model} "
                f"set to multiples of their maximum, in points: {steps}{beside}."
            ),
            numbers=asdict(curve),
        )
