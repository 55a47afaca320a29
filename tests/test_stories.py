"""A pretrained model of 260,000 parameters, real prose, and a reward on the text: from SFT and GRPO to the report."""

import json
from pathlib import Path

import pytest
from tiny_study import write_jsonl, write_task

from featdiff.files import read_json
from featdiff.workflow.cli import main

SHARED = Path(__file__).parents[2] / "shared"
MODEL, TEXT, DATA = SHARED / "models" / "stories260K", SHARED / "data" / "text", SHARED / "data"
WORD = "happy"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MODEL.is_dir() or not TEXT.is_dir(), reason=f"needs stories260K and texts in {SHARED}"),
]

STUDY = f"""
name = "stories"
threads = 1

[lineup]
base = "{MODEL}"

[posttrain]
prompts = "prompts.jsonl"
teacher = "teacher.jsonl"
reward = "contains"
checkpoints = 2

[posttrain.sft]
lr = 1e-3
batch_size = 8
micro_batch_size = 8
max_length = 128

[posttrain.grpo]
lr = 1e-3
prompts_per_generation = 8
prompts_per_step = 8
micro_batch_size = 32
rollouts = 4
max_completion_length = 32

[evaluation]
task_folder = "tasks"
data_folder = "{DATA}"
tasks = [
  {{ name = "science", role = "far" }},
  {{ name = "habits", role = "unseen" }},
  {{ name = "aime24", role = "unseen", limit = 4, repeats = 2, temperature = 0.7, max_new_tokens = 8 }},
]

[corpus]
tokens = 30_000
held_out_tokens = 2_000
context = 128
sources = [
  {{ path = "teacher.jsonl", field = "completion", share = 0.05 }},
  {{ path = "{TEXT}", share = 0.95 }},
]

[activations]
scale_tokens = 2_000

[crosscoder]
features = 128
sparsity = {{ kind = "relu", weight = 0.3 }}

[training]
batch_size = 128
lr = 3e-3

[intervention]
controls = 5
generated_controls = 1
bootstrap = 200
"""


def happy_stories(count: int) -> list[str]:
    """Continuations from the stories that hold the word, about 40 words each."""
    text = (TEXT / "tinystories_sample.txt").read_text()
    stories = [" ".join(piece.split()[:40]) for piece in text.split("\n\n")]
    return [story for story in stories if WORD in story.split()][:count]


def multiple_choice(name: str, count: int) -> list[dict[str, object]]:
    """So many items of a data set: those of the lowest rank."""
    rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
    return [
        {
            "question": row["question"],
            "choices": [f" {choice}" for choice in row["choices"]],
            "answer": row["answer_idx"],
        }
        for row in rows
        if row["rank"] < count
    ]


def test_a_study_of_stories_runs_from_post_training_to_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stories = happy_stories(24)
    assert len(stories) == 24
    names = ["Tom", "Lily", "Ben", "Mia"]
    prompts = [{"prompt": f"{n}. Once upon a time, {names[n % 4]} was", "answer": WORD} for n in range(24)]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    rows = [{"prompt": p["prompt"], "completion": " " + s} for p, s in zip(prompts, stories, strict=True)]
    write_jsonl(tmp_path / "teacher.jsonl", rows)
    write_task(tmp_path / "tasks", "science", multiple_choice("sciq", 24))
    write_task(tmp_path / "tasks", "habits", multiple_choice("openbookqa", 24))
    (tmp_path / "stories.toml").write_text(STUDY)

    with pytest.raises(SystemExit) as end:
        main(["run", str(tmp_path / "stories.toml"), "--runs", str(tmp_path / "runs")])
    said = capsys.readouterr()
    assert end.value.code == 0, said.err
    report = tmp_path / "runs" / "stories" / "report.html"
    assert said.out.splitlines()[-1] == str(report) and report.stat().st_size > 50_000

    run = report.parent
    summary = read_json(run / "summary.json")
    assert summary["models"] == ["base", "sft", "rl"]
    assert summary["accuracy"].keys() == {
        "science",
        "habits",
        "aime24",
    }
    assert read_json(run / "posttrain" / "sft" / "traces.json")["kept"] == 24
    steps = [json.loads(line) for line in (run / "posttrain" / "grpo" / "log.jsonl").read_text().splitlines()]
    assert len(steps) == 3 and all(0 <= step["reward"] <= 1 for step in steps)
    assert read_json(run / "crosscoders" / "stream.json")["counts"]["kept"] > 10_000
    assert min(summary["quality"]["joint"]["variance_explained"].values()) > 0.1
    assert summary["dynamics"].keys() == {"sft", "rl"} and summary["selection"]["tasks"] == ["science"]
    chosen, effects = summary["selection"]["chosen"], [one for one in summary["effects"] if one["task"] == "aime24"]
    assert [one["sets"]["all"]["n"] for one in effects] == ([4, 4, 4] if chosen else [])
    assert {one["verdict"] for one in effects} <= {"underpowered"}
