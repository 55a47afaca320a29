"""Dynamics in the summary and in the report."""

from collections.abc import Iterator, Mapping

from featdiff.analyses.dynamics.figures import by_alignment, dynamics_pictures
from featdiff.analyses.dynamics.result import CheckpointOverlap, Dynamics
from featdiff.files import Json, as_json, load
from featdiff.presentation.section import Section
from featdiff.presentation.words import listing, percent
from featdiff.run.plan import Plan


def dynamics_of(plan: Plan) -> dict[str, Dynamics]:
    """What the stage found, by tuned model."""
    places = {tuned: plan.run.path("dynamics", f"{tuned}.json") for tuned in plan.tuned}
    return {tuned: load(Dynamics, place) for tuned, place in places.items() if place.is_file()}


def headline_numbers(plan: Plan) -> dict[str, Json]:
    """By tuned model the overlaps, first of `Dynamics.main`, then under every alignment; and what is missing."""
    return {
        tuned: {
            **_numbers(found.main),
            "missing": found.missing,
            "by_alignment": {alignment: _numbers(one) for alignment, one in found.by_alignment.items()},
        }
        for tuned, found in dynamics_of(plan).items()
    }


def _numbers(found: CheckpointOverlap) -> dict[str, object]:
    numbers = as_json(found)
    assert isinstance(numbers, dict)
    return {key: value for key, value in numbers.items() if key not in ("ranked", "rank_shift")}


def section_of(plan: Plan) -> Section | None:
    """A table of all overlaps, and their figures by alignment."""
    by_model = dynamics_of(plan)
    return dynamics_section(by_model, plan.models) if by_model else None


def dynamics_section(by_model: Mapping[str, Dynamics], models: tuple[str, ...]) -> Section:
    """The section of these tuned models; `models` are those of the study, for their colours."""
    return Section(
        anchor="dynamics",
        title="Dynamics",
        template="dynamics/section.html",
        values={"overlaps": by_alignment(by_model), "by_model": by_model},
        figures=tuple(dynamics_pictures(by_model, models)),
        caveats=tuple(_caveats(by_model)),
    )


def _caveats(by_model: Mapping[str, Dynamics]) -> Iterator[str]:
    for tuned, found in by_model.items():
        if unmeasured := [one for one in found.by_alignment.values() if one.noise_floor is None]:
            yield (
                f"How much the overlap of {tuned} over checkpoints would be for one checkpoint measured twice is not "
                f"known under {listing([one.alignment for one in unmeasured])}; random sets would share "
                f"{listing([percent(one.chance) for one in unmeasured])} %."
            )
