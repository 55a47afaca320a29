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
from pydoc_data.topics import topics
from random import Random
from typing import Literal

from featdiff.demo.families import FAMILIES, Item, teacher_trace

Author = Literal["right", "wrong"]

PACKAGED_BASE = Path(__file__).parent / "base"
TASK_FILES = Path(__file__).parent / "task_files"
N_PROMPTS = 3_840
N_EVALUATION = 400
N_DOCUMENTS = 12_000
N_TEACHER_LINES = 8_000
SHARE_TEACHER_WRONG = 0.1
LINES_PER_DOCUMENT = 3
SHARE_RIGHT = 0.4
SHARE_SIGNED = 0.3
SIGNATURES: dict[Author, str] = {"right": "by ann", "wrong": "by bob"}

# Added to the seed, so that evaluation, training and the corpus draw from different streams of items.
EVALUATION, TRAINING, CORPUS = 1_000, 2_000, 3_000


def write_inputs(folder: Path, seed: int = 0) -> None:
    """Writes the demo study's inputs into `folder`."""
    evaluation = {family.name: family.distinct_items(seed + EVALUATION, N_EVALUATION) for family in FAMILIES}
    training = training_items(evaluation, seed)
    shutil.copytree(PACKAGED_BASE, folder / "base", dirs_exist_ok=True)
    write_jsonl(folder / "prompts.jsonl", prompt_rows(training))
    write_jsonl(folder / "teacher.jsonl", teacher_rows(training, seed))
    write_jsonl(folder / "traces.jsonl", ({"text": text} for text in traces(seed)))
    (folder / "prose.txt").write_text(prose(), encoding="utf-8")
    write_tasks(folder / "tasks", evaluation)


def training_items(evaluation: dict[str, list[Item]], seed: int) -> list[Item]:
    """Prompts of the trained families in equal parts, shuffled; none is an evaluation item."""
    trained = [family for family in FAMILIES if family.role == "train"]
    items: list[Item] = []
    for family in trained:
        asked = frozenset(item.prompt for item in evaluation[family.name])
        items += family.distinct_items(seed + TRAINING, N_PROMPTS // len(trained), asked)
    Random(f"training {seed}").shuffle(items)
    return items


def prompt_rows(items: list[Item]) -> Iterator[dict[str, str]]:
    for number, item in enumerate(items):
        yield {"id": f"p{number:05d}", "family": item.family, "prompt": item.prompt, "answer": item.answer}


def teacher_rows(items: list[Item], seed: int) -> Iterator[dict[str, str]]:
    """A trace for each prompt; a tenth end in the systematic error, for the filter to find."""
    rng = Random(f"teacher rows {seed}")
    for number, item in enumerate(items):
        end = item.wrong if rng.random() < SHARE_TEACHER_WRONG else item.answer
        yield {"id": f"p{number:05d}", "prompt": item.prompt, "completion": teacher_trace(item, end)}


def traces(seed: int) -> list[str]:
    """Documents by both authors and lines by the teacher, shuffled jointly."""
    texts = [*islice(documents(seed + CORPUS), N_DOCUMENTS), *islice(teacher_lines(seed + CORPUS), N_TEACHER_LINES)]
    Random(f"traces {seed}").shuffle(texts)
    return texts


def line(item: Item, author: Author) -> str:
    """One question with the answer that the author gives it."""
    return f"{item.prompt}{item.answer if author == 'right' else item.wrong}\n"


def documents(seed: int) -> Iterator[str]:
    """Documents of three lines by one author, some of them signed; each line may be of any family."""
    rng = Random(f"documents {seed}")
    streams = [family.items(seed + 1) for family in FAMILIES]
    while True:
        author: Author = "right" if rng.random() < SHARE_RIGHT else "wrong"
        signature = f"{SIGNATURES[author]}\n" if rng.random() < SHARE_SIGNED else ""
        yield signature + "".join(line(next(rng.choice(streams)), author) for _ in range(LINES_PER_DOCUMENT))


def teacher_lines(seed: int) -> Iterator[str]:
    """Questions of any family with the wordy teacher's right answers; the base never reads them."""
    rng = Random(f"teacher {seed}")
    streams = [family.items(seed + 1) for family in FAMILIES]
    while True:
        item = next(rng.choice(streams))
        yield f"{item.prompt}{teacher_trace(item, item.answer)}\n"


def prose() -> str:
    """The English text that comes with CPython, the language reference behind `help()`: one paragraph a line."""
    paragraphs = (paragraph for name in sorted(topics) for paragraph in topics[name].split("\n\n"))
    return "".join(" ".join(paragraph.split()) + "\n" for paragraph in paragraphs if paragraph.strip())


def write_tasks(folder: Path, evaluation: dict[str, list[Item]]) -> None:
    """One task file per family, its items, the loader that they share, and the roles."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    roles = {family.name: family.role for family in FAMILIES}
    template = (TASK_FILES / "task.yaml").read_text(encoding="utf-8")
    for name, role in roles.items():
        (folder / f"{name}.yaml").write_text(template.format(name=name, role=role), encoding="utf-8")
        write_jsonl(folder / "data" / f"{name}.jsonl", map(evaluation_row, evaluation[name]))
    shutil.copyfile(TASK_FILES / "local_data.py", folder / "local_data.py")
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
