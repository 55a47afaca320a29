"""Every figure of a report: what is drawn, the finding in words, and the numbers behind it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from featdiff.analyses.drift.pictures import drift_pictures
from featdiff.analyses.dynamics.text import dynamics_pictures
from featdiff.analyses.editing_methods.figures import ways_pictures
from featdiff.analyses.intervention.figures import effect_plot
from featdiff.analyses.intervention.text import causal_pictures
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.words import edited, plural, points
from featdiff.report.data import EffectRow, ReportData
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
    models = data.models
    yield from drift_pictures(data.drift, models)
    yield from dynamics_pictures(data.dynamics, models)
    for position, ((model, edit, _), effects) in enumerate(groups(data.effects).items()):
        yield _effects(position, model, edit, effects)
    yield from causal_pictures(data.causal)
    yield from ways_pictures(data.ways)


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
