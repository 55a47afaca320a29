"""Evaluation of a model on tasks by lm-eval's loop, item by item, and the items as token ids for interventions."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate as run_lm_eval

from featdiff.config.study import EvaluationSettings, TaskSettings
from featdiff.evaluation.answers import is_equal
from featdiff.evaluation.language_model import EditedLanguageModel, RunsEdited, stock_language_model, tokenised
from featdiff.evaluation.lm_eval_logging import line, quiet_lm_eval
from featdiff.evaluation.results import NO_CHOICE, Requests, Sample, TaskResult
from featdiff.evaluation.tasks import load_task, note_on
from featdiff.files import Json, Record
from featdiff.models.loading import PreTrainedModel
from featdiff.models.tokenizer import Tokenizer
from featdiff.progress import Progress


def evaluate(
    model: PreTrainedModel | RunsEdited, tokenizer: Tokenizer, settings: EvaluationSettings, *, seed: int
) -> list[TaskResult]:
    """Evaluate a model; one result per task of the settings, in their order.

    `seed` draws worked examples and samples generations.

    Log-likelihoods are sums of float32 log-softmax values, whatever the model's precision. The global random state is
    left as it was. A model without edits goes through lm-eval's own class for models of Hugging Face. Raises ValueError
    for a task that is unknown, lacks its data, or is neither multiple choice nor generation with exact match.
    """
    with quiet_lm_eval(), torch.random.fork_rng(), Progress("evaluating", len(settings.tasks), "task") as progress:
        tasks = {task: load_task(task, settings, seed) for task in settings.tasks}
        if isinstance(model, PreTrainedModel):
            scorer = stock_language_model(model, tokenizer, settings.batch_size)
        else:  # lm-eval's registry hides that HFLM is not abstract
            scorer = EditedLanguageModel(model, tokenizer, settings.batch_size)  # pyright: ignore[reportAbstractUsage]
        results = []
        for one, task in tasks.items():
            torch.manual_seed(seed)
            results.append(_evaluate(scorer, one, task, settings))
            progress.advance()
        return results


def build_requests(
    task: str, settings: EvaluationSettings, tokenizer: Tokenizer, *, seed: int, max_length: int | None = None
) -> Requests:
    """Build the requests of a multiple-choice task, tokenized by lm-eval: the items of `evaluate` in its order.

    Lm-eval moves spaces at the end of a context to the continuation, and puts the tokenizer's own special tokens first.
    Contexts are cut from the left so that a model of `max_length` positions can read them; None cuts nothing.
    Raises ValueError as `evaluate` does, for tasks of generated answers, and for a continuation that has no tokens or
    does not fit.
    """
    with quiet_lm_eval():
        loaded = load_task(TaskSettings(name=task), settings, seed)
        if loaded.OUTPUT_TYPE != "multiple_choice":
            raise ValueError(f"{task} asks for generated answers; interventions need a multiple-choice task")
        loaded.build_all_requests(limit=settings.limit_of(task))
        items = _items(loaded)
        encoded = tokenised(tokenizer, [instance for item in items for instance in item.instances])
    return _requests(task, items, [_cut(task, *pair, max_length) for pair in encoded])


@dataclass(frozen=True)
class _Item:
    """Item of a task, before any model answers."""

    doc_id: int
    prompt: str
    prompt_hash: str
    choices: tuple[str, ...]
    target: int
    instances: tuple[Instance, ...]
    """Lm-eval's requests: one per choice, or one for the answer."""

    @property
    def sample_id(self) -> str:
        return f"{self.doc_id}-{self.prompt_hash[:12]}"


def _evaluate(scorer: LM, one: TaskSettings, task: ConfigurableTask, settings: EvaluationSettings) -> TaskResult:
    name = one.name
    try:  # simple_evaluate would do the same, after reseeding all of Python and listing the machine's packages
        limit = settings.limit_of(name)
        report = run_lm_eval(scorer, {"tasks": {name: task}}, limit=limit, bootstrap_iters=0)
    except AssertionError as error:
        reason = line(error) or "a choice has no tokens or more than it reads; give the task a limit before that item"
        raise ValueError(f"{name}: lm-eval cannot put it to this model: {reason}") from error
    assert report is not None, "lm-eval answers on the only process"
    if task.OUTPUT_TYPE == "generate_until":
        # all items by the task's first filter come first
        logged = [dict(sample) for sample in report.get("samples", {})[name]]
        samples = [_generated(one, task, item, sample) for item, sample in zip(_items(task), logged, strict=False)]
        return TaskResult(name, "generate_until", "exact_match", tuple(samples), note_on(task))
    samples = [_chosen(name, item, settings.metric) for item in _items(task)]
    result = TaskResult(name, "multiple_choice", settings.metric, tuple(samples), note_on(task))
    reported = report.get("results", {})[name].get(f"{settings.metric},none", result.accuracy)
    assert abs(reported - result.accuracy) < 1e-9, f"lm-eval finds an accuracy of {reported}, not {result.accuracy}"
    return result


def _items(task: ConfigurableTask) -> list[_Item]:
    """Items that the task has built, in its order."""
    instances = defaultdict(list)
    for instance in task.instances:
        instances[instance.doc_id].append(instance)
    return [_item(task, doc_id, group) for doc_id, group in instances.items()]


def _item(task: ConfigurableTask, doc_id: int, instances: Sequence[Instance]) -> _Item:
    if task.OUTPUT_TYPE == "generate_until":
        prompt = instances[0].args[0]
        return _Item(doc_id, prompt, _hash([prompt]), (), NO_CHOICE, tuple(instances))
    doc = instances[0].doc
    choices = tuple(task.doc_to_choice(doc))
    asked = tuple(instances[: len(choices)])  # acc_mutual_info asks for more
    pairs = [list(instance.args[:2]) for instance in asked]
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    place = choices.index(target) if target in choices else target
    if not isinstance(place, int) or not 0 <= place < len(choices):
        raise ValueError(
            f"{task.config.task}: item {doc_id} has the right answer {target!r} and the choices {choices}; "
            "give one choice, or its number counted from 0"
        )
    return _Item(doc_id, pairs[0][0], _hash(pairs), choices, place, asked)


def _chosen(name: str, item: _Item, metric: Literal["acc", "acc_norm"]) -> Sample:
    """Record of a multiple-choice item; which choice wins is decided as in lm-eval, the first of equals."""
    log_likelihoods = np.array([instance.resps[0][0] for instance in item.instances])
    if np.isnan(log_likelihoods).any():
        raise ValueError(
            f"{name}: the model's log-likelihoods of item {item.doc_id} are not numbers; check its weights"
        )
    lengths = np.array([max(len(choice), 1) for choice in item.choices])
    by_acc, by_norm = int(log_likelihoods.argmax()), int((log_likelihoods / lengths).argmax())
    prediction = by_acc if metric == "acc" else by_norm
    return Sample(
        sample_id=item.sample_id,
        prompt_hash=item.prompt_hash,
        prompt=item.prompt,
        choices=item.choices,
        target=item.target,
        target_text=item.choices[item.target],
        log_likelihoods=tuple(log_likelihoods.tolist()),
        prediction_acc=by_acc,
        prediction_acc_norm=by_norm,
        prediction_text=item.choices[prediction],
        correct=prediction == item.target,
    )


def _generated(one: TaskSettings, task: ConfigurableTask, item: _Item, logged: Record) -> Sample:
    answers, right = tuple(item.instances[0].resps), str(logged["target"])
    first = logged["filtered_resps"][0]
    if one.uses_math_verify:
        rights = tuple(is_equal(answer, right) for answer in answers)
    elif "exact_match" not in logged:
        raise ValueError(f"{one.name} generates answers and scores them by {logged['metrics']}; give it exact_match")
    else:
        doc = item.instances[0].doc
        scores = [logged] if len(answers) == 1 else [task.process_results(doc, [answer]) for answer in answers]
        rights = tuple(bool(score["exact_match"] == 1) for score in scores)
    return Sample(
        sample_id=item.sample_id,
        prompt_hash=item.prompt_hash,
        prompt=item.prompt,
        target_text=right,
        prediction_text=first if isinstance(first, str) else str(first[0]),
        correct=2 * sum(rights) > len(rights),
        answers=answers,
        rights=rights,
    )


def _requests(task: str, items: list[_Item], encoded: list[tuple[list[int], list[int]]]) -> Requests:
    return Requests(
        task=task,
        sample_ids=tuple(item.sample_id for item in items),
        choice_counts=torch.tensor([len(item.choices) for item in items]),
        target=torch.tensor([item.target for item in items]),
        context_ids=[context for context, _ in encoded],
        continuation_ids=[continuation for _, continuation in encoded],
        choice_characters=torch.tensor([float(len(choice)) for item in items for choice in item.choices]),
    )


def _cut(task: str, context: list[int], continuation: list[int], max_length: int | None) -> tuple[list[int], list[int]]:
    """Cut the context to what a model of `max_length` positions can read; it never reads the last token."""
    if not continuation:
        raise ValueError(f"{task} has a choice without tokens; give every choice some text")
    if max_length is None:
        return context, continuation
    room = max_length + 1 - len(continuation)
    if room < 1:
        raise ValueError(f"{task} has a choice of {len(continuation)} tokens; the model reads at most {max_length}")
    return context[-room:], continuation


def _hash(asked: Json) -> str:
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()
