"""`intervene`: zero the chosen features in the tuned model and amplify them in the base, beside controls."""

import itertools
import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from featdiff.analyses.intervention.dose_response import dose_levels, doses
from featdiff.analyses.intervention.generated import effect_on_answers
from featdiff.analyses.intervention.side_effects import side_effects
from featdiff.config.study import TaskSettings
from featdiff.evaluation.results import Requests
from featdiff.files import Record, read_json, write_json
from featdiff.intervention.edits import Edit
from featdiff.intervention.effects import (
    HEADLINE,
    MATCHED,
    ControlName,
    EditedAnswers,
    Effect,
    ItemSetName,
    deciding_kinds,
    measure_effect,
)
from featdiff.intervention.pooled_effects import TaskChange, pooled_effect
from featdiff.intervention.side_effects import first_tokens
from featdiff.run.evaluation import choice_tasks, generated_tasks, requests_of
from featdiff.run.intervention_context import (
    Bench,
    Measured,
    PlannedEdit,
    answers_of,
    edit_of,
    edited_items,
    item_sets,
    measured,
    nothing_moved,
    paper_edits,
    planned_edits,
)
from featdiff.run.plan import Plan
from featdiff.stats import Draws, Flips, holm


def intervene(plan: Plan, folder: Path) -> None:
    """Write a file for each edit and task and each model's doses and side effects, and all in `effects.json`.

    Choices are scored again under every edit, generated answers generated again; claims over tasks are on choices.

    When no feature was chosen there is nothing to edit: the list of effects is empty and says why.
    """
    selection = read_json(plan.run.path("selection", "selection.json"))
    chosen = torch.tensor(selection["chosen"], dtype=torch.long)
    half = torch.tensor(selection["without_held_out"]["chosen"], dtype=torch.long)
    if not len(chosen):
        write_json(folder / "effects.json", {"effects": [], "records": [], "note": selection["rule"]})
        return
    tests, tasks, written = planned_edits(plan), choice_tasks(plan), _written(plan)
    for model in dict.fromkeys(test.model for test in tests):
        _work(plan, folder, model, [test for test in tests if test.model == model], chosen, half)
    found = {test: [read_json(_place(folder, plan, test, task)) for task in (*tasks, *written)] for test in tests}
    made: Record = {"effects": [], "records": [], "claims": []}
    for test, files in found.items():
        adjusted = holm(np.array([one["effect"]["p"] for one in files], dtype=float)).tolist()
        made["effects"] += [one["effect"] | {"p_holm": p} for one, p in zip(files, adjusted, strict=True)]
        made["records"] += [one["record"] | {"p_holm": p} for one, p in zip(files, adjusted, strict=True)]
        made["claims"].append(claim_of(plan, test, [one["record"] for one in files[: len(tasks)]]))
    made["doses"] = [one for test in _first(tests) for one in _doses(plan, folder, test.model)]
    made["side_effects"] = [
        one for test in _first(tests) for one in read_json(folder / test.model / "side_effects.json")["edits"]
    ]
    write_json(folder / "effects.json", made)


def effect_of(
    bench: Bench,
    test: PlannedEdit,
    task: TaskSettings,
    items: Int[Tensor, " items"],
    requests: Requests,
    found: Measured,
    chosen: Int[Tensor, " n"],
    half: Int[Tensor, " half"],
) -> tuple[Effect, Int[Tensor, "2 items"]]:
    """One edit on one task, and the choices before and under it. Features for held-out items were chosen without them;
    of unseen tasks all are held out."""
    plan, settings = bench.plan, bench.plan.study.intervention
    sets = item_sets(plan, task, items)
    before, answers, choices = answers_of(bench, test, requests, chosen, found)
    unseen = task.role == "unseen"
    held = answers if unseen else _on_part(bench, test, requests, half, sets.held_out, before, answers)
    effect = measure_effect(
        task.name,
        bench.model,
        edit_of(bench, test, chosen, found),
        before,
        answers,
        held,
        sets,
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=plan.study.seed,
    )
    return effect, choices


def claim_of(plan: Plan, test: PlannedEdit, records: list[Record], items: ItemSetName = HEADLINE) -> Record:
    """One edit over all tasks, by one set of items and the controls that decide."""
    settings, parts = plan.study.intervention, list[TaskChange]()
    for one in (record["sets"][items] for record in records):
        flips = Flips(one["n"], one["flips"]["lost"], one["flips"]["gained"])
        others = {kind: np.array(record["values"]) for kind, record in one["controls"].items()}
        kinds = deciding_kinds(others, settings.confidence)
        controls: dict[ControlName, Draws] = {MATCHED: np.array(one["control"]["values"])}
        controls |= {kind: others[kind] for kind in kinds}
        parts.append(TaskChange(flips, controls))
    confidence, resamples = settings.confidence, settings.bootstrap
    found = pooled_effect(parts, test.goal, resamples=resamples, confidence=confidence, seed=plan.study.seed)
    about: Record = {"model": test.model, "edit": test.value.name, "expected": test.goal}
    return about | {"tasks": sum(part.flips.n > 0 for part in parts)} | found.to_json()


def _written(plan: Plan) -> list[TaskSettings]:
    """Tasks whose answers are generated again under edits."""
    return generated_tasks(plan) if plan.study.intervention.generated_controls else []


def _work(
    plan: Plan,
    folder: Path,
    model: str,
    tests: list[PlannedEdit],
    chosen: Int[Tensor, " n"],
    half: Int[Tensor, " half"],
) -> None:
    """Whatever is missing of one model's files."""
    bench = None
    for task in choice_tasks(plan):
        missing = [test for test in tests if not _place(folder, plan, test, task).is_file()]
        swept = _dose_place(folder, model, task)
        if not missing and (swept.is_file() or not plan.study.intervention.doses):
            continue
        bench = bench or Bench.of(plan, model)
        items, requests = edited_items(plan, requests_of(plan, task.name, bench.lineup))
        levels = [test.value for test in tests] + dose_levels(plan, model)
        found = measured(bench, requests, levels)
        for test in missing:
            effect, choices = effect_of(bench, test, task, items, requests, found, chosen, half)
            more = _form(bench, edit_of(bench, test, chosen, found), requests, choices)
            _write(_place(folder, plan, test, task), effect, more)
        if plan.study.intervention.doses and not swept.is_file():
            sets = item_sets(plan, task, items)
            write_json(swept, doses(bench, task.name, tests[0].goal, requests, chosen, found, sets.critical))
    for test, task in itertools.product(tests, _written(plan)):
        if not (place := _place(folder, plan, test, task)).is_file():
            bench = bench or Bench.of(plan, model)
            _write(place, *effect_on_answers(bench, test, task, chosen, place.parent / "answers" / task.name))
    if not (folder / model / "side_effects.json").is_file():
        bench = bench or Bench.of(plan, model)
        write_json(folder / model / "side_effects.json", {"edits": side_effects(bench, tests, chosen)})


def _write(place: Path, effect: Effect, more: Record) -> None:
    write_json(place, {"effect": effect.to_json() | more, "record": effect.to_record() | more})


def _form(bench: Bench, edit: Edit, requests: Requests, choices: Int[Tensor, "2 items"]) -> Record:
    """How often each choice is predicted, and how often an answer begins as a choice does, before and under an edit;
    and the share of wrong answers that another choice, picked at random, would put right: mean of 1 / (choices - 1)."""
    settings, width = bench.plan.study.intervention, int(requests.choice_counts.max())
    histogram = [torch.bincount(row, minlength=width).tolist() for row in choices]
    size, reading = settings.batch_size, settings.reading
    begins = first_tokens(
        requests, bench.lineup, bench.upper, bench.crosscoder, bench.model, [edit], batch_size=size, reading=reading
    )
    shares = begins.double().mean(dim=1).tolist()
    return {
        "predictions": {"before": histogram[0], "after": histogram[1]},
        "answer_format": {"before": shares[0], "after": shares[1]},
        "guessing_again": float((1 / (requests.choice_counts - 1).clamp(min=1)).double().mean()),
    }


def _on_part(
    bench: Bench,
    test: PlannedEdit,
    requests: Requests,
    features: Int[Tensor, " half"],
    part: Int[Tensor, " part"],
    before: Bool[Tensor, " items"],
    like: EditedAnswers,
) -> EditedAnswers:
    """Answers on some of the items, by as many controls as in `like`; on the others everything stays as before."""
    answers = nothing_moved(before, like)
    if len(part) and len(features):
        some = requests.select(part)
        _, found, _ = answers_of(bench, test, some, features, measured(bench, some, [test.value]))
        answers.after[part] = found.after
        answers.controls[:, part] = found.controls
        for kind, draws in answers.others.items():
            draws[:, part] = found.others[kind]
    return answers


def _doses(plan: Plan, folder: Path, model: str) -> list[Record]:
    if not plan.study.intervention.doses:
        return []
    return [read_json(_dose_place(folder, model, task)) for task in choice_tasks(plan)]


def _first(tests: list[PlannedEdit]) -> list[PlannedEdit]:
    """The first test of every model."""
    return [test for index, test in enumerate(tests) if test.model not in {other.model for other in tests[:index]}]


def _place(folder: Path, plan: Plan, test: PlannedEdit, task: TaskSettings) -> Path:
    """The paper's edits lie in the model's folder, others in folders of their own in it."""
    paper = test.value.kind in ("zero", "set") and test in paper_edits(plan)
    name = "" if paper else re.sub(r"[^a-z0-9.]+", "-", test.value.name.lower()).strip("-")
    return folder / test.model / name / f"{task.name}.json"


def _dose_place(folder: Path, model: str, task: TaskSettings) -> Path:
    return folder / model / "doses" / f"{task.name}.json"
