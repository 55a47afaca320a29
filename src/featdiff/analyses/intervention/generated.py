"""Edits while a model writes its answers: every variant generates all answers of a task anew, beside its controls."""

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from featdiff.config.study import BASE, TaskSettings
from featdiff.evaluation.answered import answered
from featdiff.evaluation.answers import is_found
from featdiff.evaluation.harness import evaluate
from featdiff.evaluation.results import Requests, TaskResult
from featdiff.files import Record
from featdiff.intervention.controls import activity_matched
from featdiff.intervention.edited_model import EditedModel
from featdiff.intervention.edits import Edit
from featdiff.intervention.effects import Effect, ItemSets
from featdiff.intervention.generation import Generated, form_of_answers, measure_generated_effect
from featdiff.models.loading import load_tokenizer
from featdiff.progress import Progress
from featdiff.run.evaluation import located_settings, longest_read, outcomes_of
from featdiff.run.intervention_context import Bench, PlannedEdit, edit_of, measured


def effect_on_answers(
    bench: Bench, test: PlannedEdit, task: TaskSettings, chosen: Int[Tensor, " n"], folder: Path
) -> tuple[Effect, Record]:
    """One edit on one task of generated answers, with the form of the answers.

    All answers lie in `folder`, a parquet file for the chosen features and for each control; what is there already is
    taken over. Before the edit stands what `evaluate` has recorded.
    """
    plan, settings = bench.plan, bench.plan.study.intervention
    before = TaskResult.load(plan.run.path("evaluation", bench.model, f"{task.name}.parquet"))
    edits = _edits(bench, test, before, chosen)
    results = [before]
    with Progress(f"{task.name} by {bench.model}: {test.value.name}", len(edits), "set of answers") as progress:
        for name, edit in edits.items():
            results.append(_answers(bench, task, edit, folder / f"{name}.parquet"))
            progress.advance()
    plain, selected, *controls = [_generated(bench, task, result) for result in results]
    sampling = {"resamples": settings.bootstrap, "confidence": settings.confidence, "seed": plan.study.seed}
    effect = measure_generated_effect(
        task.name, bench.model, edits["chosen"], plain, selected, controls, _sets(bench, task), **sampling
    )
    form = form_of_answers(plain, selected, controls, **sampling)
    return effect, {"repeats": plain.right.shape[1], **form}


def _edits(bench: Bench, test: PlannedEdit, before: TaskResult, chosen: Int[Tensor, " n"]) -> dict[str, Edit]:
    """The chosen features, and features as active where the model reads its prompts and its own unedited answers."""
    plan = bench.plan
    found = measured(bench, _read(bench, before), [test.value])
    drawn = activity_matched(
        chosen,
        found.own.density,
        found.own.contribution,
        bench.attribution.alive,
        plan.study.intervention.generated_controls,
        plan.study.seed,
    )
    sets = {"chosen": chosen} | {f"control-{number}": row for number, row in enumerate(drawn.features, 1)}
    return {name: edit_of(bench, test, features, found) for name, features in sets.items()}


def _answers(bench: Bench, task: TaskSettings, edit: Edit, place: Path) -> TaskResult:
    """All answers under one edit, asked for exactly as before it."""
    if place.is_file():
        return TaskResult.load(place)
    plan, settings = bench.plan, bench.plan.study.intervention
    edited = EditedModel(
        bench.upper.whole, bench.lineup, bench.crosscoder, bench.model, (edit,), settings.reading, settings.error
    )
    path, trust = plan.paths[bench.model], plan.study.lineup.trust_remote_code
    tokenizer = load_tokenizer(path, trust_remote_code=trust)
    asked = located_settings(plan).model_copy(update={"tasks": (task,)})
    (result,) = evaluate(edited, tokenizer, asked, seed=plan.study.seed)
    result.save(place)
    return result


def _read(bench: Bench, result: TaskResult) -> Requests:
    return answered(result, bench.lineup.tokenizer, longest_read(bench.lineup))


def _generated(bench: Bench, task: TaskSettings, result: TaskResult) -> Generated:
    lengths = [len(continuation) - 1 for continuation in _read(bench, result).continuation_ids]
    right = torch.tensor([sample.rights for sample in result.samples])
    found = [
        [is_found(answer, mathematical=task.uses_math_verify) for answer in sample.answers] for sample in result.samples
    ]
    return Generated(right, torch.tensor(found), torch.tensor(lengths).reshape(right.shape))


def _sets(bench: Bench, task: TaskSettings) -> ItemSets:
    outcomes, tuned = outcomes_of(bench.plan, task.name), bench.plan.study.selection.model
    critical = outcomes.critical(BASE, tuned)
    return ItemSets(critical, outcomes.mirror(BASE, tuned), held_out=critical)
