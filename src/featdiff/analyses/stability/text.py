"""Stability over seeds in the summary and in the report."""

from featdiff.analyses.stability.result import LineupStability, OverSeeds
from featdiff.files import Json, as_json, load
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan
from featdiff.run.results import fit_of

Row = tuple[str, OverSeeds, int | None]
"""A cut, the counts above it, and how many of them are stable."""


def lineups(plan: Plan) -> dict[str, LineupStability]:
    """What the stage found of every lineup with several seeds, but those of single checkpoints."""
    places = {name: plan.run.path("stability", f"{name}.json") for name in plan.lineups}
    return {name: load(LineupStability, place) for name, place in places.items() if place.is_file()}


def headline_numbers(plan: Plan) -> dict[str, Json]:
    """By lineup the counts under every seed, and the variance explained under each."""
    found: dict[str, Json] = {}
    for name, one in lineups(plan).items():
        fits = [fit_of(plan, seed) for seed in plan.seeds[name]]
        explained = {model: [fit.variance_explained[model] for fit in fits] for model in plan.crosscoders[name].models}
        numbers = as_json(one)
        assert isinstance(numbers, dict)
        found[name] = numbers | {"variance_explained": explained}
    return found


def section_of(plan: Plan) -> Section | None:
    """Two tables: the tails under every seed, and the features that are found again."""
    found = lineups(plan)
    if not found:
        return None
    tails = {
        (name, model): _rows(one, model)
        for name, one in found.items()
        for model in one.tails
        if model in plan.tuned or model not in plan.models
    }
    return Section(
        anchor="stability",
        title="Over seeds",
        template="stability/section.html",
        values={"lineups": found, "tails": tails},
    )


def _rows(one: LineupStability, model: str) -> list[Row]:
    stable = (one.stable_tails or {}).get(model, {})
    return [(cut, counts, stable.get(cut)) for cut, counts in one.tails[model].items() if cut != "alive"]
