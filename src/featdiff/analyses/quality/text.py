"""The fit of the crosscoders in the summary and in the report, and what they leave unseen."""

from collections.abc import Mapping, Sequence

from featdiff.analyses.quality.figures import Row, quality_dots
from featdiff.files import Json, as_json, load
from featdiff.presentation.picture import Picture
from featdiff.presentation.section import Section
from featdiff.presentation.words import count, percent
from featdiff.run.plan import CrosscoderPlan, Plan
from featdiff.run.results import FIT, HeldOutFit, fit_of

HELD_OUT, PROMPTS = "held-out corpus", "evaluation prompts"
FAITHFUL = 0.9
"""Below this recovered cross-entropy, what holds inside the crosscoder need not hold in the model."""


def headline_numbers(plan: Plan) -> dict[str, Json]:
    """By lineup the fit of its first seed on held-out text, and on the prompts where that was measured."""
    found: dict[str, dict[str, Json]] = {}
    for name, text, fit in rows_of(plan):
        if text == HELD_OUT:
            found[name] = {key: as_json(value) for key, value in vars(fit).items()}
        else:
            found[name]["evaluation_prompts"] = as_json(fit)
    return dict(found)


def rows_of(plan: Plan) -> list[Row]:
    """The fit of every lineup's first seed, on held-out text and then on the prompts; those that were measured."""
    rows: list[Row] = []
    for name in plan.lineups:
        if plan.run.path("crosscoders", name, FIT).is_file():
            rows.append((name, HELD_OUT, fit_of(plan, name)))
            place = plan.run.path("quality", f"{name}.json")
            rows += [(name, PROMPTS, load(HeldOutFit, place))] if place.is_file() else []
    return rows


def section_of(plan: Plan) -> Section | None:
    """A figure and a table with a row for each crosscoder and text."""
    rows = rows_of(plan)
    return report_section(rows, plan.crosscoders) if rows else None


def report_section(rows: Sequence[Row], crosscoders: Mapping[str, CrosscoderPlan]) -> Section:
    """The section of some rows; `crosscoders` says what each was asked to be."""
    return Section(
        anchor="fit",
        title="How well the crosscoders fit",
        template="quality/section.html",
        values={"rows": rows, "crosscoders": crosscoders},
        figures=[_picture(rows)],
        caveats=[worst_fit(rows)],
    )


def worst_fit(rows: Sequence[Row]) -> str:
    """The largest share of variance that is left unexplained, and the least cross-entropy recovered."""
    explained = [share for _, _, fit in rows for share in fit.variance_explained.values() if share is not None]
    lost = f", up to {percent(1 - min(explained))} % of a model's variance," if explained else ""
    sentence = f"What the crosscoders leave unexplained{lost} is not seen"
    recovered = [
        (share, model, name, text)
        for name, text, fit in rows
        for model, share in (fit.ce_recovered or {}).items()
        if share is not None
    ]
    if not recovered:
        return f"{sentence}; how much of the models' cross-entropy they recover was not measured."
    share, model, name, text = min(recovered, key=lambda found: found[0])
    enough = ", too little for causal claims there" if share < FAITHFUL else ""
    place = f"{model} in {name}, {text}"
    return f"{sentence}; they recover at least {percent(share)} % of the cross-entropy ({place}){enough}."


def _picture(rows: Sequence[Row]) -> Picture:
    said = [
        f"{name} on {text} ({count(fit.tokens)} tokens): "
        + ", ".join(f"{model} {percent(share)}" for model, share in fit.variance_explained.items())
        for name, text, fit in rows
    ]
    return Picture(
        name="quality",
        section="quality",
        figure=quality_dots(rows),
        title="Fit of the crosscoders",
        finding=f"Variance explained in %: {'; '.join(said)}.",
        numbers={"rows": [{"lineup": name, "measured_on": text, "fit": as_json(fit)} for name, text, fit in rows]},
    )
