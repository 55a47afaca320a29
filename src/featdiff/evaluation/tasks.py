"""Tasks of lm-eval, by name, or YAML files of `task_folder`, by their `task:` or their file name.

Names of the folder go first. Relative `data_files` of such a file are looked for in its folder, then in `task_folder`,
then, as in lm-eval, in the working folder. With a `data_folder`, the paper's tasks are task files of our own, which ask
lm-eval's questions of local JSONL files: a row holds a question, and choices with answer_idx, or an answer. Nothing is
downloaded for local data.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from glob import glob
from pathlib import Path
from types import MappingProxyType

from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from featdiff.config.evaluation import DATA_FILES
from featdiff.config.study import EvaluationSettings, TaskSettings
from featdiff.evaluation.lm_eval_logging import reading
from featdiff.files import Record

WITHOUT_PASSAGE = "asked without its passage"
"""The note on SciQ where no item has the passage that lm-eval shows: its accuracy is not the benchmark's."""

_FILE_FORMATS = ("arrow", "csv", "json", "parquet", "text")
"""Values of `dataset_path` that stand for a format of `data_files`, not for a data set on the hub."""
_OWN = Path(__file__).parent / "task_files"


def load_task(one: TaskSettings, settings: EvaluationSettings, seed: int) -> ConfigurableTask:
    """Load a task as the settings ask. Raises ValueError for a task, data or settings that cannot be used."""
    with reading(one.name):
        task = _find_task(one.name, settings)
    _set_generation(task, one)
    # as simple_evaluate does: a task that says 0 worked examples keeps 0
    if task.config.num_fewshot != 0:
        task.set_config(key="num_fewshot", value=settings.fewshot)
    task.set_fewshot_seed(seed=seed)
    return task


def note_on(task: ConfigurableTask) -> str:
    """Note for readers on the questions asked; empty where they are the benchmark's."""
    if task.config.task != "sciq":
        return ""
    docs = (dict(doc) for doc in task.eval_docs)
    shown = any(doc.get("support") or (doc.get("meta") or {}).get("support") for doc in docs)
    return "" if shown else WITHOUT_PASSAGE


def _set_generation(task: ConfigurableTask, one: TaskSettings) -> None:
    """Set repetitions, temperature and length of generated answers."""
    options: dict[str, float | int | bool] = {}
    if one.temperature is not None:
        options |= {"temperature": one.temperature, "do_sample": one.temperature > 0}
    if one.max_new_tokens is not None:
        options["max_gen_toks"] = one.max_new_tokens
    if task.OUTPUT_TYPE != "generate_until":
        if options or one.repeats is not None:
            raise ValueError(
                f"{one.name} scores choices; repeats, temperature and max_new_tokens are for generated answers"
            )
        return
    task.set_config("generation_kwargs", options, update=True)
    if one.repeats is not None:
        task.set_config("repeats", one.repeats)
    generation = task.config.generation_kwargs or {}
    if task.config.repeats > 1 and not (generation.get("do_sample") and generation.get("temperature", 1.0) > 0):
        raise ValueError(
            f"{one.name} asks for {task.config.repeats} greedy answers, which are all the same; "
            "give it a temperature above 0, or repeats = 1"
        )


def _find_task(name: str, settings: EvaluationSettings) -> ConfigurableTask:
    if settings.task_folder is not None:
        return _of_folder(name, settings.task_folder, settings)
    if settings.data_folder is not None and name in DATA_FILES:
        return _of_data(name, settings.data_folder, settings.fewshot)
    if (_OWN / "hub" / f"{name}.yaml").is_file():
        return _only_task(TaskManager(include_path=_OWN / "hub", include_defaults=False), name)
    return _only_task(_own_tasks(), name)


def _of_data(name: str, data_folder: str, fewshot: int) -> ConfigurableTask:
    """A task of the paper that asks the questions of a local file."""
    if fewshot:
        raise ValueError(f"{name}: evaluation.data_folder holds no worked examples; set evaluation.fewshot to 0")
    file, place = Path(data_folder).expanduser().resolve() / DATA_FILES[name], _OWN / "local"
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": _absolute(str(file), (file.parent,))}}}
    return _only_task(TaskManager(include_path=place, include_defaults=False), name, place, data=data)


def _of_folder(name: str, task_folder: str, settings: EvaluationSettings) -> ConfigurableTask:
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
    elsewhere = settings.model_copy(update={"task_folder": None})
    if name in DATA_FILES:
        return _find_task(name, elsewhere)
    return _only_task(_own_tasks(), name, nearby=sorted(files))


@cache
def _own_tasks() -> TaskManager:
    """Lm-eval's own tasks; reading their 14,000 entries takes seconds."""
    return TaskManager()


def _only_task(
    manager: TaskManager,
    name: str,
    folder: Path | None = None,
    nearby: Sequence[str] = (),
    data: Mapping[str, object] = MappingProxyType({}),
) -> ConfigurableTask:
    """Load one task; `data` overrides its file."""
    entry = manager.task_index.get(name)
    if entry is None:
        nearest = get_close_matches(name, [*nearby, *manager.all_tasks], n=3) or list(nearby[:3])
        raise ValueError(f"no task is called {name!r}; nearest: {', '.join(nearest) or 'none'}")
    if name in manager.all_groups or name in manager.all_tags:
        raise ValueError(f"{name!r} is a group of tasks; name its tasks one by one")
    spec = name if folder is None or entry.yaml_path is None else _local_config(entry.yaml_path, folder) | dict(data)
    (task,) = manager.load([spec])["tasks"].values()
    if not isinstance(task, ConfigurableTask) or task.OUTPUT_TYPE not in ("multiple_choice", "generate_until"):
        raise ValueError(f"{name} is neither a multiple-choice task nor one of generated answers; leave it out")
    if task.OUTPUT_TYPE == "multiple_choice" and task.config.process_results is not None:
        raise ValueError(f"{name} scores its items by a rule of its own, not by the likeliest choice; leave it out")
    return task


def _local_config(path: Path, folder: Path) -> Record:
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
    """Resolve each path, which may hold wildcards, at the first root that has it; addresses stay as they are."""
    found = []
    for path in [paths] if isinstance(paths, str) else paths:
        places = [root / path for root in roots if (root / path).exists() or glob(path, root_dir=root)]
        if not places and "://" not in path:
            raise ValueError(f"there is no data file {path} in {roots[0]}; put it there, or give its absolute path")
        if places and places[0].is_file() and places[0].stat().st_size == 0:
            raise ValueError(f"the data file {places[0]} is empty; give it at least one item")
        found.append(str(places[0]) if places else path)
    return found
