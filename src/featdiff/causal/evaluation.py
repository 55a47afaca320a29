"""The door to lm-eval: a model on benchmarks, item by item (P9), and the items as token ids for interventions.

A task is one of lm-eval's, by name, or a YAML file of `task_folder`, by its `task:` or its file name; names of the
folder go first. Relative `data_files` of such a file are looked for beside it, then in `task_folder`, then, as in
lm-eval, in the working folder. Nothing is downloaded for local data.
"""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from glob import glob
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import datasets
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
import numpy as np
import torch
import yaml
from datasets.exceptions import DatasetsError
from jinja2 import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate as run_lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from tqdm import tqdm

from featdiff.activations.models import PreTrainedModel, Tokenizer
from featdiff.causal.records import NO_CHOICE, Requests, Sample, TaskResult
from featdiff.progress import Progress
from featdiff.study import EvaluationSettings

__all__ = ["Requests", "Sample", "TaskResult", "build_requests", "evaluate"]

_FILE_FORMATS = ("arrow", "csv", "json", "parquet", "text")
"""Values of `dataset_path` that stand for a format of `data_files`, not for a data set on the hub."""


def evaluate(
    model: PreTrainedModel, tokenizer: Tokenizer, settings: EvaluationSettings, *, seed: int
) -> list[TaskResult]:
    """One result per task of the settings, in their order; `seed` draws worked examples and samples generations.

    Log-likelihoods are sums of float32 log-softmax values, whatever the model's precision. The global random state is
    left as it was. Raises ValueError for a task that is unknown, lacks its data, or is neither multiple choice nor
    generation with exact match.
    """
    with _quiet(), torch.random.fork_rng(), Progress("evaluating", len(settings.tasks), "task") as progress:
        tasks = {task.name: _load_task(task.name, settings, seed) for task in settings.tasks}
        scorer = _scorer(tokenizer, model, settings.batch_size)
        results = []
        for name, task in tasks.items():
            torch.manual_seed(seed)
            results.append(_evaluate(scorer, name, task, settings))
            progress.advance()
        return results


def build_requests(
    task: str,
    settings: EvaluationSettings,
    tokenizer: Tokenizer,
    *,
    seed: int,
    max_length: int | None = None,
) -> Requests:
    """The items of a multiple-choice task as lm-eval tokenises them: the same items, in the order of `evaluate`.

    Lm-eval moves spaces at the end of a context to the continuation, and puts the tokenizer's own special tokens first.
    Contexts are cut from the left so that a model of `max_length` positions can read them; None cuts nothing.
    Raises ValueError as `evaluate` does, for tasks of generated answers, and for a continuation that has no tokens or
    does not fit.
    """
    with _quiet():
        loaded = _load_task(task, settings, seed)
        if loaded.OUTPUT_TYPE != "multiple_choice":
            raise ValueError(f"{task} asks for generated answers; interventions need a multiple-choice task")
        loaded.build_all_requests(limit=settings.limit)
        items = _items(loaded)
        encoded = _tokenised(tokenizer, [instance for item in items for instance in item.instances])
    return _requests(task, items, [_cut(task, *pair, max_length) for pair in encoded])


@dataclass(frozen=True)
class _Item:
    """What is asked, before any model answers."""

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


def _scorer(tokenizer: Tokenizer, model: PreTrainedModel | SimpleNamespace, batch_size: int) -> TemplateLM:
    settings = {
        "pretrained": model,
        "tokenizer": deepcopy(tokenizer),  # lm-eval gives it a padding token
        "backend": "causal",
        "batch_size": batch_size,
        "softmax_dtype": "float32",
    }
    scorer = HFLM.create_from_arg_obj(settings)
    assert isinstance(scorer, TemplateLM), "HFLM is one"
    return scorer


def _tokenised(tokenizer: Tokenizer, instances: list[Instance]) -> list[tuple[list[int], list[int]]]:
    """Context and continuation as token ids, by all of HFLM that comes before the model."""
    encoded = []

    def keep(requests: list[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool) -> list[tuple]:
        encoded.extend((context, continuation) for _, context, continuation in requests)
        return []

    no_model = SimpleNamespace(config=SimpleNamespace(model_type="none"), device="cpu")
    scorer = _scorer(tokenizer, no_model, batch_size=1)
    vars(scorer)["_loglikelihood_tokens"] = keep
    scorer.loglikelihood(instances)
    return encoded


def _evaluate(scorer: TemplateLM, name: str, task: ConfigurableTask, settings: EvaluationSettings) -> TaskResult:
    try:  # simple_evaluate would do the same, after reseeding all of Python and listing the machine's packages
        report = run_lm_eval(scorer, {"tasks": {name: task}}, limit=settings.limit, bootstrap_iters=0)
    except AssertionError as error:
        reason = _line(error) or "a choice has no tokens, or more than the model reads"
        raise ValueError(f"{name}: lm-eval cannot put it to this model: {reason}") from error
    assert report is not None, "lm-eval answers on the only process"
    if task.OUTPUT_TYPE == "generate_until":
        # all items by the task's first filter come first
        logged = [dict(sample) for sample in report.get("samples", {})[name]]
        samples = [_generated(name, item, sample) for item, sample in zip(_items(task), logged, strict=False)]
        return TaskResult(name, "generate_until", "exact_match", tuple(samples))
    samples = [_chosen(name, item, settings.metric) for item in _items(task)]
    result = TaskResult(name, "multiple_choice", settings.metric, tuple(samples))
    reported = report.get("results", {})[name].get(f"{settings.metric},none", result.accuracy)
    assert abs(reported - result.accuracy) < 1e-9, f"lm-eval finds an accuracy of {reported}, not {result.accuracy}"
    return result


def _items(task: ConfigurableTask) -> list[_Item]:
    """The items that the task has built, in its order."""
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
    """The record of a multiple-choice item; which choice wins is decided as in lm-eval, the first of equals."""
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


def _generated(name: str, item: _Item, logged: dict) -> Sample:
    if "exact_match" not in logged:
        raise ValueError(f"{name} generates answers and scores them by {logged['metrics']}; give it exact_match")
    answer = logged["filtered_resps"][0]
    return Sample(
        sample_id=item.sample_id,
        prompt_hash=item.prompt_hash,
        prompt=item.prompt,
        choices=(),
        target=NO_CHOICE,
        target_text=str(logged["target"]),
        log_likelihoods=(),
        prediction_acc=NO_CHOICE,
        prediction_acc_norm=NO_CHOICE,
        prediction_text=answer if isinstance(answer, str) else str(answer[0]),
        correct=bool(logged["exact_match"] == 1),
    )


def _requests(task: str, items: list[_Item], encoded: list[tuple[list[int], list[int]]]) -> Requests:
    counts = torch.tensor([len(item.choices) for item in items])
    choices = list(chain.from_iterable(item.choices for item in items))
    return Requests(
        task=task,
        sample_ids=tuple(item.sample_id for item in items),
        choice_counts=counts,
        target=torch.tensor([item.target for item in items]),
        context_ids=[context for context, _ in encoded],
        continuation_ids=[continuation for _, continuation in encoded],
        sample_of=torch.arange(len(items)).repeat_interleave(counts),
        choice_of=torch.cat([torch.arange(count) for count in counts.tolist()]),
        choice_bytes=torch.tensor([float(len(choice.encode())) for choice in choices]),
        choice_characters=torch.tensor([float(len(choice)) for choice in choices]),
    )


def _cut(task: str, context: list[int], continuation: list[int], max_length: int | None) -> tuple[list[int], list[int]]:
    """Context without what a model of `max_length` positions cannot read; it never reads the last token."""
    if not continuation:
        raise ValueError(f"{task} has a choice without tokens; give every choice some text")
    if max_length is None:
        return context, continuation
    room = max_length + 1 - len(continuation)
    if room < 1:
        raise ValueError(f"{task} has a choice of {len(continuation)} tokens; the model reads at most {max_length}")
    return context[-room:], continuation


def _load_task(name: str, settings: EvaluationSettings, seed: int) -> ConfigurableTask:
    with _reading(name):
        task = _find_task(name, settings.task_folder)
    # as simple_evaluate does: a task that says 0 worked examples keeps 0
    if task.config.num_fewshot != 0:
        task.set_config(key="num_fewshot", value=settings.fewshot)
    task.set_fewshot_seed(seed=seed)
    return task


def _find_task(name: str, task_folder: str | None) -> ConfigurableTask:
    if task_folder is None:
        return _only_task(_own_tasks(), name)
    folder = Path(task_folder).expanduser().resolve()
    if not folder.is_dir():
        raise ValueError(f"there is no task folder {task_folder}; give evaluation.task_folder a folder of YAML files")
    local = TaskManager(include_path=folder, include_defaults=False)
    files = {entry.yaml_path.stem: task for task, entry in local.task_index.items() if entry.yaml_path is not None} | {
        task: task for task in local.all_tasks
    }
    if name in files:
        return _only_task(local, files[name], folder)
    if (folder / f"{name}.yaml").is_file():
        raise ValueError(f"{folder / name}.yaml is no task file: it needs valid YAML with a line `task: {name}`")
    return _only_task(_own_tasks(), name, nearby=sorted(files))


@cache
def _own_tasks() -> TaskManager:
    """Lm-eval's own tasks; reading their 14,000 entries takes seconds."""
    return TaskManager()


def _only_task(
    manager: TaskManager, name: str, folder: Path | None = None, nearby: Sequence[str] = ()
) -> ConfigurableTask:
    entry = manager.task_index.get(name)
    if entry is None:
        nearest = get_close_matches(name, [*nearby, *manager.all_tasks], n=3) or list(nearby[:3])
        raise ValueError(f"no task is called {name!r}; nearest: {', '.join(nearest) or 'none'}")
    if name in manager.all_groups or name in manager.all_tags:
        raise ValueError(f"{name!r} is a group of tasks; name its tasks one by one")
    spec = name if folder is None or entry.yaml_path is None else _local_config(entry.yaml_path, folder)
    (task,) = manager.load([spec])["tasks"].values()
    if not isinstance(task, ConfigurableTask) or task.OUTPUT_TYPE not in ("multiple_choice", "generate_until"):
        raise ValueError(f"{name} is neither a multiple-choice task nor one of generated answers; leave it out")
    if task.OUTPUT_TYPE == "multiple_choice" and task.config.process_results is not None:
        raise ValueError(f"{name} scores its items by a rule of its own, not by the likeliest choice; leave it out")
    return task


def _local_config(path: Path, folder: Path) -> dict:
    """The task file with absolute paths to its data."""
    config = load_yaml(path)
    source = dict(config.get("dataset_kwargs") or {})
    if config.get("dataset_path") in _FILE_FORMATS and "data_files" in source:
        roots = (path.parent, folder, Path.cwd())
        match source["data_files"]:
            case dict(splits):
                source["data_files"] = {split: _absolute(paths, roots) for split, paths in splits.items()}
            case paths:
                source["data_files"] = _absolute(paths, roots)
    return config | {"dataset_kwargs": source}


def _absolute(paths: str | list[str], roots: tuple[Path, ...]) -> list[str]:
    """Each path at the first root where it, or what its wildcards match, exists; addresses stay as they are."""
    found = []
    for path in [paths] if isinstance(paths, str) else paths:
        places = [root / path for root in roots if (root / path).exists() or glob(path, root_dir=root)]
        if not places and "://" not in path:
            raise ValueError(f"there is no data file {path} in {roots[0]}; put it there, or give its absolute path")
        if places and places[0].is_file() and places[0].stat().st_size == 0:
            raise ValueError(f"the data file {places[0]} is empty; give it at least one item")
        found.append(str(places[0]) if places else path)
    return found


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turns what lm-eval and datasets throw at missing or malformed tasks and data into one line."""
    try:
        yield
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: its task file is not valid YAML: {_line(error)}") from error
    except TemplateError as error:
        raise ValueError(f"{name}: a template does not fit its data: {_line(error)}; check the column names") from error
    except KeyError as error:
        raise ValueError(f"{name}: its data lack {_line(error)}; check the split and column names") from error
    except IndexError as error:
        raise ValueError(f"{name}: its data are empty, or an answer's number is beyond its choices") from error
    except (OSError, DatasetsError) as error:
        raise ValueError(f"{name}: its data cannot be read: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """The first cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200]


def _hash(asked: list) -> str:
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()


def _no_bar(iterable: Iterable | None = None, **_: object) -> tqdm:
    """A progress bar that is never drawn."""
    return tqdm(iterable, disable=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps lm-eval's log lines and the bars of lm-eval and datasets off the terminal."""
    logger = logging.getLogger("lm_eval")
    drawing = [vars(module) for module in (lm_eval.api.task, lm_eval.api.model, lm_eval.models.huggingface)]
    level, bars = logger.level, not datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    for names in drawing:
        names["tqdm"] = _no_bar
    try:
        yield
    finally:
        logger.setLevel(level)
        for names in drawing:
            names["tqdm"] = tqdm
        if bars:
            datasets.enable_progress_bars()
