"""Lm-eval's own task files, pointed at the rows of the shared data: what stock lm-eval would ask of the hub's."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from featdiff.config.evaluation import DATA_FILES

SHARED = Path(__file__).parents[2] / "shared"
MODEL, DATA = SHARED / "models" / "stories260K", SHARED / "data"
shared = pytest.mark.skipif(not MODEL.is_dir() or not DATA.is_dir(), reason=f"needs stories260K and data in {SHARED}")

CHOICES = {
    "openbookqa": ("openbookqa/openbookqa.yaml", "test", 500),
    "commonsense_qa": ("commonsense_qa/default.yaml", "validation", 1221),
    "headqa_en": ("headqa/headqa_en.yaml", "test", 2742),
    "sciq": ("sciq/sciq.yaml", "test", 1000),
    "arc_challenge": ("arc/arc_challenge.yaml", "test", 1172),
    "logiqa": ("logiqa/logiqa.yaml", "test", 651),
    "piqa": ("piqa/piqa.yaml", "validation", 1838),
}
GENERATED = {
    "hendrycks_math500": ("hendrycks_math/hendrycks_math500.yaml", "test", 500),
    "aime24": ("aime/aime24.yaml", "train", 30),
    "aime25": ("aime/aime25.yaml", "test", 30),
}
TASKS = CHOICES | GENERATED


@cache
def rows(task: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / DATA_FILES[task]).read_text().splitlines()]


def as_on_the_hub(task: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in the form of the data set that lm-eval's own task reads."""
    letters = "ABCDE"[: len(row.get("choices", ()))]
    labelled = {"text": row.get("choices", ()), "label": list(letters)}
    match task:
        case "openbookqa":
            return {"question_stem": row["question"], "choices": labelled, "answerKey": letters[row["answer_idx"]]}
        case "commonsense_qa" | "arc_challenge":
            return {"question": row["question"], "choices": labelled, "answerKey": letters[row["answer_idx"]]}
        case "headqa_en":
            answers = [{"aid": number, "atext": text} for number, text in enumerate(row["choices"], 1)]
            return {"qtext": row["question"], "answers": answers, "ra": row["answer_idx"] + 1}
        case "sciq":
            wrong = [text for place, text in enumerate(row["choices"]) if place != row["answer_idx"]]
            named = {f"distractor{number}": text for number, text in enumerate(wrong, 1)}
            return {"support": "", "question": row["question"], "correct_answer": row["answer"], **named}
        case "logiqa":
            passage, rest = row["question"].removeprefix("Context: ").split("\nQuestion: ")
            asked, choices = rest.split("\nChoices: ")
            options = re.split(r"(?:^|\n)[A-D]\. ", choices)[1:]
            return {"context": passage, "question": asked, "options": options, "label": "abcd"[row["answer_idx"]]}
        case "piqa":
            return {"goal": row["question"], "sol1": row["choices"][0], "sol2": row["choices"][1]} | {
                "label": row["answer_idx"]
            }
        case "hendrycks_math500":
            return {"problem": row["question"], "solution": row["solution"], "answer": row["answer"]}
        case "aime24":
            return {"Problem": row["question"], "Answer": row["answer"]}
    return {"problem": row["question"], "answer": row["answer"]}


def stock_config(task: str, folder: Path) -> dict[str, Any]:
    """Lm-eval's own task file, pointed at the rows."""
    place, split, _ = TASKS[task]
    file = folder / f"{task}-hub.jsonl"
    file.write_text("".join(json.dumps(as_on_the_hub(task, row)) + "\n" for row in rows(task)))
    config = load_yaml(Path(lm_eval.tasks.__path__[0]) / place)
    splits = {key: None for key in ("training_split", "validation_split", "test_split", "fewshot_split")}
    kept = {key: value for key, value in splits.items() if config.get(key) != split}
    return (
        config
        | kept
        | {
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {split: str(file)}},
        }
    )


def stock_task(task: str, folder: Path) -> ConfigurableTask:
    (made,) = TaskManager(include_defaults=False).load([stock_config(task, folder)])["tasks"].values()
    assert isinstance(made, ConfigurableTask)
    return made
