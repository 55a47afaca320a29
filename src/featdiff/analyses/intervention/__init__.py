"""What the selected features do: zeroed in the tuned model and amplified in the base, against controls (Sec. 7)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from featdiff.analyses.intervention.result import Interventions
    from featdiff.config.study import TaskSettings
    from featdiff.intervention.experiment import PlannedEdit
    from featdiff.run.splice import Part


def run(plan: Plan, folder: Path) -> None:
    """Write a file for each edit and task and each model's doses and side effects, and all in `effects.json`.

    Choices are scored again under every edit, generated answers generated again; claims over tasks are on choices.
    When no feature was selected there is nothing to edit, and the result says why.
    """
    import torch

    from featdiff.analyses.intervention.result import Interventions
    from featdiff.analyses.selection.result import SelectionResult
    from featdiff.files import load, save
    from featdiff.run.intervention_context import planned_edits

    selection = load(SelectionResult, plan.run.path("selection", "selection.json"))
    chosen, half = (torch.tensor(one.chosen).long() for one in (selection, selection.without_held_out))
    found, edits = Interventions((), note=selection.rule), planned_edits(plan)
    if len(chosen):
        for model in dict.fromkeys(edit.model for edit in edits):
            _measure(plan, folder, model, [edit for edit in edits if edit.model == model], chosen, half)
        found = _gathered(plan, folder, edits)
    save(found, folder / "effects.json")


def summary(plan: Plan) -> dict[str, Json]:
    """Effects by task, claims over tasks, and side effects on text."""
    found = _result(plan)
    return {"effects": []} if found is None else found.summary()


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    from featdiff.analyses.intervention.text import section_of

    found = _result(plan)
    return None if found is None else section_of(found, plan.study.intervention.confidence)


def _result(plan: Plan) -> "Interventions | None":
    from featdiff.analyses.intervention.result import Interventions
    from featdiff.files import load

    path = plan.run.path("interventions", "effects.json")
    return load(Interventions, path) if path.is_file() else None


def _measure(
    plan: Plan, folder: Path, model: str, edits: Sequence["PlannedEdit"], chosen: "Tensor", half: "Tensor"
) -> None:
    """Write whatever is missing of one model's files; the models are loaded where something is."""
    from functools import cache

    import torch

    from featdiff.analyses.intervention import compute
    from featdiff.evaluation.results import TaskResult
    from featdiff.files import save
    from featdiff.models.tokenizer import load_tokenizer
    from featdiff.run.evaluation import choice_tasks, located_settings, record_file, requests_of
    from featdiff.run.intervention_context import edited_items, item_sets, load_experiment

    loaded, settings = cache(lambda: load_experiment(plan, model)), plan.study.intervention
    for task in choice_tasks(plan):
        files = {edit: _effect_file(plan, folder, edit, task.name) for edit in edits}
        missing = [edit for edit, file in files.items() if not file.is_file()]
        swept = _doses_file(folder, model, task.name)
        sweep = bool(settings.doses) and not swept.is_file()
        if not missing and not sweep:
            continue
        experiment = loaded()
        items, requests = edited_items(plan, requests_of(plan, task.name, experiment.lineup))
        sets = item_sets(plan, task, items)
        found = experiment.activity(requests, [edit.value for edit in edits] + compute.dose_values(experiment))
        for edit in missing:
            save(compute.effect_on_choices(experiment, edit, task, requests, sets, chosen, half, found), files[edit])
        if sweep:
            critical, goal = sets.critical, edits[0].goal
            save(compute.doses(experiment, task.name, goal, requests, chosen, found, critical), swept)
    for task in _generated(plan):
        asked = located_settings(plan).model_copy(update={"tasks": (task,)})
        before = TaskResult.load(record_file(plan.run.path("evaluation"), model, task.name))
        tokenizer = load_tokenizer(plan.paths[model], trust_remote_code=plan.study.lineup.trust_remote_code)
        sets = item_sets(plan, task, torch.arange(len(before.samples)))
        for edit in edits:
            file = _effect_file(plan, folder, edit, task.name)
            if not file.is_file():
                place = file.parent / "answers" / task.name
                save(compute.effect_on_answers(loaded(), edit, asked, tokenizer, before, sets, chosen, place), file)
    if not (file := _side_effects_file(folder, model)).is_file():
        save(compute.side_effects(loaded(), _text(plan), edits, chosen), file)


def _gathered(plan: Plan, folder: Path, edits: Sequence["PlannedEdit"]) -> "Interventions":
    """Everything from the files of all models."""
    from featdiff.analyses.intervention.compute import adjusted, claim_of
    from featdiff.analyses.intervention.result import Interventions, SideEffects, TaskDoses, TaskEffect
    from featdiff.files import load
    from featdiff.run.evaluation import choice_tasks

    tasks, settings = choice_tasks(plan), plan.study.intervention
    names = [task.name for task in (*tasks, *_generated(plan))]
    effects = [adjusted([load(TaskEffect, _effect_file(plan, folder, edit, name)) for name in names]) for edit in edits]
    models = dict.fromkeys(edit.model for edit in edits)
    swept = [_doses_file(folder, model, task.name) for model in models for task in tasks] if settings.doses else []
    text = [one for model in models for one in load(SideEffects, _side_effects_file(folder, model)).edits]
    return Interventions(
        effects=tuple(one for row in effects for one in row),
        claims=tuple(claim_of(row[: len(tasks)], settings, plan.study.seed) for row in effects),
        doses=tuple(load(TaskDoses, file) for file in swept),
        side_effects=tuple(text),
    )


def _generated(plan: Plan) -> "list[TaskSettings]":
    """Tasks whose answers are generated again under edits."""
    from featdiff.run.evaluation import generated_tasks

    return generated_tasks(plan) if plan.study.intervention.generated_controls else []


def _text(plan: Plan) -> "list[Part]":
    """Batches of held-out text with as many tokens as the study wants, or somewhat more; all where there are fewer."""
    from featdiff.run.held_out import held_out_corpus
    from featdiff.run.splice import packed_parts

    parts: list[Part] = []
    tokens = 0
    for part in packed_parts(held_out_corpus(plan), plan.study.activations.batch_size):
        if tokens < plan.study.intervention.neutral_tokens:
            parts.append(part)
            tokens += part.input_ids.numel()
    return parts


def _effect_file(plan: Plan, folder: Path, edit: "PlannedEdit", task: str) -> Path:
    """The paper's edits lie in the model's folder, others in folders of their own in it."""
    from featdiff.run.intervention_context import paper_edits

    name = "" if edit in paper_edits(plan) else re.sub(r"[^a-z0-9.]+", "-", edit.value.name.lower()).strip("-")
    return folder / edit.model / name / f"{task}.json"


def _doses_file(folder: Path, model: str, task: str) -> Path:
    return folder / model / "doses" / f"{task}.json"


def _side_effects_file(folder: Path, model: str) -> Path:
    return folder / model / "side_effects.json"
