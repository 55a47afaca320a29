"""Features that differ where the tuned model is right and the base wrong (Sec. 3.2, Eq. 11)."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan

IN_SUMMARY = (
    "tasks",
    "per_task",
    "chosen",
    "rule",
    "score",
    "stability",
    "by_rule",
    "without_task",
    "elsewhere",
)


def run(plan: Plan, folder: Path) -> None:
    """Write `selection.json` (what was chosen, by both scores), `scores.safetensors` and `controls.safetensors`."""
    from dataclasses import replace

    from featdiff.analyses.selection.compute import TaskItems, stability_of_features, write_selection
    from featdiff.files import save
    from featdiff.run.evaluation import outcomes_of, prompt_ends, selecting_tasks
    from featdiff.run.scored import attribution_of, crosscoder_and_lineup

    tasks, settings, name = selecting_tasks(plan), plan.study.selection, plan.joint
    if not tasks:
        raise ValueError(
            "no multiple-choice task takes part in the selection; give evaluation.tasks one whose role is not unseen"
        )
    crosscoder, lineup = crosscoder_and_lineup(plan)
    alive = attribution_of(plan, name).alive
    items = (TaskItems(task, outcomes_of(plan, task), prompt_ends(plan, lineup, task)) for task in tasks)
    found = write_selection(crosscoder, alive, items, settings, folder, lineup=name, seed=plan.study.seed)
    if len(plan.seeds[name]) > 1:
        place = plan.run.path("stability", f"{name}.safetensors")
        stability = stability_of_features(place, found.chosen, crosscoder.models, settings.model)
        found = replace(found, stability=stability)
    save(found, folder / "selection.json")


def summary(plan: Plan) -> dict[str, Json]:
    """The selected features, by which rule, and what other rules and items would select."""
    from featdiff.analyses.selection.result import SelectionResult
    from featdiff.files import as_json, load

    place = plan.run.path("selection", "selection.json")
    found = as_json(load(SelectionResult, place)) if place.is_file() else {}
    assert isinstance(found, dict)
    return {"selection": {key: found[key] for key in IN_SUMMARY if found.get(key) is not None}}


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    from featdiff.analyses.selection.result import SelectionResult
    from featdiff.analyses.selection.text import section_of
    from featdiff.files import load

    place = plan.run.path("selection", "selection.json")
    return section_of(load(SelectionResult, place)) if place.is_file() else None
