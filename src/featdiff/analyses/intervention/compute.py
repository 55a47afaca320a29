"""Measure what the selected features do: zeroed in the tuned model, amplified in the base, against control features."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.analyses.intervention.result import (
    ChoiceAnswers,
    Claim,
    ControlAccuracy,
    DoseAccuracy,
    GeneratedAnswers,
    Predictions,
    SideControls,
    SideEffect,
    SideEffects,
    TaskDoses,
    TaskEffect,
)
from featdiff.config.evaluation import EvaluationSettings, TaskSettings
from featdiff.config.intervention import InterventionSettings
from featdiff.evaluation.answered import answered
from featdiff.evaluation.answers import is_found
from featdiff.evaluation.harness import evaluate
from featdiff.evaluation.results import Requests, TaskResult
from featdiff.intervention.activity import activity_on, order_of
from featdiff.intervention.controls import activity_matched
from featdiff.intervention.edit_values import EditValue
from featdiff.intervention.edited_model import EditedModel
from featdiff.intervention.edits import Edit
from featdiff.intervention.effect_records import BeforeAfter
from featdiff.intervention.effects import Effect, ItemSets
from featdiff.intervention.experiment import Experiment, MeasuredActivity, PlannedEdit
from featdiff.intervention.generation import Generated, answer_form, measure_generated_effect
from featdiff.intervention.pooled_effects import pool
from featdiff.intervention.scoring import correctness
from featdiff.intervention.side_effects import TextShift, edited_residual, first_tokens, text_shift
from featdiff.models.tokenizer import Tokenizer
from featdiff.progress import Progress
from featdiff.run.evaluation import longest_read
from featdiff.run.splice import Part
from featdiff.stats import Direction, holm

Features = Int[Tensor, " n"]

# ------------------------------------------------------------------ choices


def effect_on_choices(
    experiment: Experiment,
    edit: PlannedEdit,
    task: TaskSettings,
    requests: Requests,
    sets: ItemSets,
    chosen: Features,
    half: Int[Tensor, " half"],
    found: MeasuredActivity,
) -> TaskEffect:
    """Measure one edit on one task of choices.

    Arguments:
        requests, sets: the task's items, and positions among them.
        chosen: features selected on all critical items.
        half: features selected without the held-out ones; of an unseen task all critical items are held out from both.
        found: activity on the task.
    """
    part = None if task.role == "unseen" else half
    effect, answers = experiment.effect(edit, requests, chosen, part, sets, task=task.name, found=found)
    width = int(requests.choice_counts.max())
    before, after = (tuple(torch.bincount(row, minlength=width).tolist()) for row in answers.choices)
    begins = first_tokens(
        requests,
        experiment.lineup,
        experiment.upper,
        experiment.crosscoder,
        experiment.model,
        [experiment.edit(edit, chosen, found)],
        batch_size=experiment.settings.batch_size,
        reading=experiment.settings.reading,
    )
    guessing = float((1 / (requests.choice_counts - 1).clamp(min=1)).double().mean())
    form = BeforeAfter(*begins.double().mean(dim=1).tolist())
    return _task_effect(effect, task, ChoiceAnswers(Predictions(before, after), form, guessing))


def _task_effect(effect: Effect, task: TaskSettings, answers: ChoiceAnswers | GeneratedAnswers) -> TaskEffect:
    record = effect.full_record()
    return TaskEffect(**vars(record), role=task.role, answers=answers, p_holm=record.p)


def adjusted(effects: Sequence[TaskEffect]) -> list[TaskEffect]:
    """The effects of one edit with Holm's p over all its tasks."""
    values = holm(np.array([one.p for one in effects], dtype=float)).tolist()
    return [replace(one, p_holm=p) for one, p in zip(effects, values, strict=True)]


def claim_of(effects: Sequence[TaskEffect], settings: InterventionSettings, seed: int) -> Claim:
    """One edit over all its tasks of choices, tested on the held-out critical items."""
    model, edit, expected = effects[0].edit_key
    tasks = sum(one.sets["held_out"].n > 0 for one in effects)
    return Claim(**vars(pool(effects, settings, seed)), model=model, edit=edit, expected=expected, tasks=tasks)


# ------------------------------------------------------------------ doses


def dose_values(experiment: Experiment) -> list[EditValue]:
    """The multiples of their maximum that features are set to."""
    return [EditValue("times_max", by, experiment.other) for by in experiment.settings.doses]


def doses(
    experiment: Experiment,
    task: str,
    goal: Direction,
    requests: Requests,
    chosen: Features,
    found: MeasuredActivity,
    critical: Int[Tensor, " critical"],
) -> TaskDoses:
    """Measure accuracy on all items and on the critical ones at every dose, in one pass over the task.

    Controls are the same sets of features at every dose.
    """
    values = dose_values(experiment)
    sets = [chosen, *_matched(experiment, chosen, found, experiment.settings.dose_controls)]
    planned = [PlannedEdit(experiment.model, value, goal) for value in values]
    edits = [experiment.edit(one, features, found) for one in planned for features in sets]
    right = correctness(experiment.score(requests, edits), requests, experiment.metric).double()
    before, after = right[0], right[1:].reshape(len(values), len(sets), -1)
    return TaskDoses(
        task=task,
        model=experiment.model,
        features=len(chosen),
        doses=tuple(experiment.settings.doses),
        draws=len(sets) - 1,
        sets={
            "all": _dose_accuracy(before, after),
            "critical": _dose_accuracy(before[critical], after[:, :, critical]),
        },
    )


def _matched(
    experiment: Experiment, chosen: Features, found: MeasuredActivity, draws: int
) -> list[Int[Tensor, " size"]]:
    """Sets of features as active as those chosen."""
    own = found.own
    drawn = activity_matched(chosen, own.density, own.contribution, experiment.alive, draws, experiment.seed)
    return list(drawn.features)


def _dose_accuracy(before: Float[Tensor, " items"], after: Float[Tensor, "doses sets items"]) -> DoseAccuracy:
    if not len(before):
        return DoseAccuracy(0, None, (), ())
    shares = after.mean(dim=-1)
    control = [
        ControlAccuracy(float(row.mean()), float(row.min()), float(row.max())) for row in shares[:, 1:] if len(row)
    ]
    return DoseAccuracy(len(before), float(before.mean()), tuple(shares[:, 0].tolist()), tuple(control))


# ------------------------------------------------------------------ generated answers


def effect_on_answers(
    experiment: Experiment,
    edit: PlannedEdit,
    asked: EvaluationSettings,
    tokenizer: Tokenizer,
    before: TaskResult,
    sets: ItemSets,
    chosen: Features,
    place: Path,
) -> TaskEffect:
    """Measure one edit on one task of generated answers.

    All answers lie in the folder `place`, a parquet file for the chosen features and for each control; what is there
    already is taken over. Controls are as active as the chosen features where the model reads its prompts and its own
    unedited answers.

    Arguments:
        asked: how the one task is evaluated.
        tokenizer: of the edited model.
        before: unedited answers.
        sets: critical, mirror and held-out items.
        chosen: the selected features.
    """
    (task,), settings = asked.tasks, experiment.settings
    found = experiment.activity(_read(experiment, before), [edit.value])
    controls = _matched(experiment, chosen, found, settings.generated_controls)
    variants = {"chosen": chosen} | {f"control-{number}": row for number, row in enumerate(controls, 1)}
    edits = {name: experiment.edit(edit, features, found) for name, features in variants.items()}
    results = [before]
    title = f"{task.name} by {experiment.model}: {edit.value.name}"
    with Progress(title, len(edits), "set of answers") as progress:
        for name, one in edits.items():
            results.append(_answers(experiment, one, asked, tokenizer, place / f"{name}.parquet"))
            progress.advance()
    plain, selected, *others = [_generated(experiment, task, result) for result in results]
    effect = measure_generated_effect(
        task.name,
        experiment.model,
        edits["chosen"],
        plain,
        selected,
        others,
        sets,
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=experiment.seed,
    )
    form = answer_form(
        plain,
        selected,
        others,
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=experiment.seed,
    )
    return _task_effect(effect, task, GeneratedAnswers(plain.right.shape[1], **vars(form)))


def _answers(
    experiment: Experiment, edit: Edit, asked: EvaluationSettings, tokenizer: Tokenizer, place: Path
) -> TaskResult:
    """All answers under one edit, asked for exactly as before it."""
    if place.is_file():
        return TaskResult.load(place)
    settings, whole = experiment.settings, experiment.upper.whole
    edited = EditedModel(
        whole,
        experiment.lineup,
        experiment.crosscoder,
        experiment.model,
        (edit,),
        settings.reading,
        settings.error,
    )
    (result,) = evaluate(edited, tokenizer, asked, seed=experiment.seed)
    result.save(place)
    return result


def _read(experiment: Experiment, result: TaskResult) -> Requests:
    """The answers as token ids."""
    return answered(result, experiment.lineup.tokenizer, longest_read(experiment.lineup))


def _generated(experiment: Experiment, task: TaskSettings, result: TaskResult) -> Generated:
    lengths = [len(continuation) - 1 for continuation in _read(experiment, result).continuation_ids]
    right = torch.tensor([sample.rights for sample in result.samples])
    found = [
        [is_found(answer, mathematical=task.uses_math_verify) for answer in sample.answers] for sample in result.samples
    ]
    return Generated(right, torch.tensor(found), torch.tensor(lengths).reshape(right.shape))


# ------------------------------------------------------------------ side effects


def side_effects(
    experiment: Experiment, parts: Sequence[Part], edits: Sequence[PlannedEdit], chosen: Features
) -> SideEffects:
    """Measure KL and cross-entropy on text under every edit of one model, at all its tokens.

    Values that are measured are measured on this text. Controls are features matched by activity on it, edited in the
    same way.
    """
    if not parts:
        return SideEffects(())
    settings, order = experiment.settings, order_of(experiment.lineup, experiment.crosscoder)
    streams = [experiment.lineup.residuals(part.input_ids, None, part.position_ids) for part in parts]
    found = _text_activity(experiment, edits, [stream[:, :, order] for stream in streams])
    sets = [chosen, *_matched(experiment, chosen, found, settings.side_controls)]
    made = [[experiment.edit(edit, features, found) for features in sets] for edit in edits]
    sums = [[TextShift(0.0, 0.0, 0.0, 0) for _ in row] for row in made]
    index = experiment.lineup.names.index(experiment.model)
    for part, stream in zip(parts, streams, strict=True):
        everywhere = torch.ones_like(part.input_ids, dtype=torch.bool).to(stream.device)
        labels, plain = part.labels.to(stream.device), _logits(experiment, part, stream[:, :, index])
        for row, edited in enumerate(made):
            for column, edit in enumerate(edited):
                moved = edited_residual(
                    stream[:, :, order],
                    experiment.crosscoder,
                    experiment.model,
                    edit,
                    everywhere,
                    settings.reading,
                )
                sums[row][column] += text_shift(plain, _logits(experiment, part, moved), labels)
    model, features = experiment.model, len(chosen)
    return SideEffects(tuple(_side_effect(model, edit, features, row) for edit, row in zip(edits, sums, strict=True)))


def _logits(
    experiment: Experiment, part: Part, residual: Float[Tensor, "batch positions d_model"]
) -> Float[Tensor, "batch positions vocabulary"]:
    places = None if part.position_ids is None else part.position_ids.to(residual.device)
    return experiment.upper(residual, part.input_ids.to(residual.device), None, places)


def _side_effect(model: str, edit: PlannedEdit, features: int, shifts: Sequence[TextShift]) -> SideEffect:
    own, *controls = [shift.record() for shift in shifts]
    control = SideControls(len(controls), tuple(one.kl for one in controls))
    return SideEffect(**vars(own), model=model, edit=edit.value.name, features=features, control=control)


def _text_activity(
    experiment: Experiment,
    edits: Sequence[PlannedEdit],
    streams: Sequence[Float[Tensor, "batch positions models d_model"]],
) -> MeasuredActivity:
    quantiles = sorted({edit.value.by for edit in edits if edit.value.kind == "quantile"})
    own, given = (
        activity_on(
            (stream.flatten(0, 1) for stream in streams),
            experiment.crosscoder,
            experiment.model,
            reading=experiment.settings.reading,
            source=source,
            quantiles=quantiles,
        )
        for source in (None, experiment.other)
    )
    return MeasuredActivity(own, given)
