"""What the demo reads: the same bytes each time, nothing both trained on and evaluated, tasks that lm-eval runs."""

import hashlib
import json
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from featdiff.demo.families import FAMILIES
from featdiff.demo.inputs import N_EVALUATION, N_PROMPTS, SHARE_TEACHER_WRONG, write_inputs
from featdiff.posttraining.rewards import exact_match


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_writings_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    assert digests(tmp_path) == digests(folder)


def test_prompts_are_distinct_and_of_the_trained_families(folder: Path) -> None:
    prompts = rows(folder / "prompts.jsonl")
    assert len({row["prompt"] for row in prompts}) == len({row["id"] for row in prompts}) == N_PROMPTS
    assert {row["family"] for row in prompts} == {family.name for family in FAMILIES if family.role == "train"}


def test_the_teacher_answers_the_very_prompts_and_is_sometimes_wrong(folder: Path) -> None:
    prompts, traces = rows(folder / "prompts.jsonl"), rows(folder / "teacher.jsonl")
    assert [(row["id"], row["prompt"]) for row in prompts] == [(row["id"], row["prompt"]) for row in traces]
    right = [exact_match(trace["completion"], row["answer"]) for trace, row in zip(traces, prompts, strict=True)]
    assert 1 - sum(right) / len(right) == pytest.approx(SHARE_TEACHER_WRONG, abs=0.02)


def test_no_evaluation_item_repeats_or_is_trained_on(folder: Path) -> None:
    trained = {row["prompt"] for row in rows(folder / "prompts.jsonl")}
    for family in FAMILIES:
        questions = [row["question"] for row in rows(folder / "tasks" / "data" / f"{family.name}.jsonl")]
        assert len(set(questions)) == len(questions) == N_EVALUATION
        assert not trained & set(questions)


def test_roles_name_every_task(folder: Path) -> None:
    roles = json.loads((folder / "tasks" / "roles.json").read_text(encoding="utf-8"))
    assert roles == {family.name: family.role for family in FAMILIES}
    assert {path.stem for path in (folder / "tasks").glob("*.yaml")} == set(roles)


def test_lm_eval_loads_every_task_and_scores_the_prompt_as_it_was_trained(folder: Path) -> None:
    manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    tasks = manager.load([family.name for family in FAMILIES])["tasks"]
    for family in FAMILIES:
        task, row = tasks[family.name], rows(folder / "tasks" / "data" / f"{family.name}.jsonl")[0]
        task.build_all_requests(limit=1, rank=0, world_size=1)
        assert [instance.args for instance in task.instances[: len(row["choices"])]] == [
            (row["question"], choice) for choice in row["choices"]
        ]


def test_the_corpus_holds_both_halves(folder: Path) -> None:
    assert (folder / "traces.jsonl").stat().st_size > 1_000_000
    assert (folder / "prose.txt").stat().st_size > 400_000
    assert all(row["text"].endswith("\n") for row in rows(folder / "traces.jsonl"))
