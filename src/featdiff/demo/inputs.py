"""Writes all that the demo study reads, offline and the same bytes each time.

    base/                 the packaged base, an ordinary Hugging Face folder
    prompts.jsonl         id, family, prompt, answer: what both paradigms are trained on
    teacher.jsonl         id, prompt, completion: a wordy teacher's trace for each prompt, some with a wrong end
    traces.jsonl          text: questions and answers of every family by both authors and the teacher
    prose.txt             English, one paragraph a line
    tasks/*.yaml          one lm-eval multiple-choice task per family, its items under tasks/data/
    tasks/roles.json      each task's part in the study

No evaluation item occurs among the prompts.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from random import Random

from featdiff.demo.families import FAMILIES, Item, teacher_trace
from featdiff.demo.recipe import documents, prose, teacher_lines

PACKAGED_BASE = Path(__file__).parent / "base"
N_PROMPTS = 3_840
N_EVALUATION = 400
N_DOCUMENTS = 12_000
N_TEACHER_LINES = 8_000
SHARE_TEACHER_WRONG = 0.1

# Added to the seed, so that evaluation, training and the corpus draw from different streams of items.
EVALUATION, TRAINING, CORPUS = 1_000, 2_000, 3_000

TASK = """\
task: {name}
custom_dataset: !function local_data.load
dataset_kwargs:
  file: data/{name}.jsonl
output_type: multiple_choice
test_split: test
doc_to_text: question
doc_to_target: answer_idx
doc_to_choice: choices
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
  role: {role}
"""

LOADER = '''\
"""Lets lm-eval read the items that lie beside the task files, wherever the folder is."""

import json
from pathlib import Path

from datasets import Dataset


def load(file: str, **_: object) -> dict[str, Dataset]:
    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
'''


def write_inputs(folder: Path, seed: int = 0) -> None:
    """Writes the demo study's inputs into `folder`."""
    evaluation = {family.name: family.distinct_items(seed + EVALUATION, N_EVALUATION) for family in FAMILIES}
    training = training_items(evaluation, seed)
    shutil.copytree(PACKAGED_BASE, folder / "base", dirs_exist_ok=True)
    write_jsonl(folder / "prompts.jsonl", map(prompt_row, range(N_PROMPTS), training))
    write_jsonl(folder / "teacher.jsonl", teacher_rows(training, seed))
    write_jsonl(folder / "traces.jsonl", ({"text": text} for text in traces(seed)))
    (folder / "prose.txt").write_text(prose(), encoding="utf-8")
    write_tasks(folder / "tasks", evaluation)


def training_items(evaluation: dict[str, list[Item]], seed: int) -> list[Item]:
    """Prompts of the trained families in equal parts, shuffled; none is an evaluation item."""
    trained = [family for family in FAMILIES if family.role == "train"]
    items = [
        item
        for family in trained
        for item in family.distinct_items(
            seed + TRAINING, N_PROMPTS // len(trained), frozenset(item.prompt for item in evaluation[family.name])
        )
    ]
    Random(f"training {seed}").shuffle(items)
    return items


def prompt_row(number: int, item: Item) -> dict[str, str]:
    return {"id": f"p{number:05d}", "family": item.family, "prompt": item.prompt, "answer": item.answer}


def teacher_rows(items: list[Item], seed: int) -> Iterator[dict[str, str]]:
    """A trace for each prompt; a tenth end in the systematic error, for the filter to find."""
    rng = Random(f"teacher rows {seed}")
    for number, item in enumerate(items):
        end = item.wrong if rng.random() < SHARE_TEACHER_WRONG else item.answer
        yield {"id": f"p{number:05d}", "prompt": item.prompt, "completion": teacher_trace(item, end)}


def traces(seed: int) -> list[str]:
    """Documents by both authors and lines by the teacher, shuffled jointly."""
    texts = [
        *islice(documents(seed + CORPUS), N_DOCUMENTS),
        *islice(teacher_lines(seed + CORPUS), N_TEACHER_LINES),
    ]
    Random(f"traces {seed}").shuffle(texts)
    return texts


def write_tasks(folder: Path, evaluation: dict[str, list[Item]]) -> None:
    """One task file per family, its items, the loader that they share, and the roles."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    roles = {family.name: family.role for family in FAMILIES}
    for name, role in roles.items():
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, role=role), encoding="utf-8")
        write_jsonl(folder / "data" / f"{name}.jsonl", map(evaluation_row, evaluation[name]))
    (folder / "local_data.py").write_text(LOADER, encoding="utf-8")
    (folder / "roles.json").write_text(json.dumps(roles, indent=2) + "\n", encoding="utf-8")


def evaluation_row(item: Item) -> dict[str, str | int | list[str]]:
    return {
        "question": item.prompt,
        "choices": list(item.choices),
        "answer_idx": item.answer_index,
        "wrong_idx": item.choices.index(item.wrong),
    }


def write_jsonl(path: Path, rows: Iterable[dict[str, str]] | Iterable[dict[str, str | int | list[str]]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
