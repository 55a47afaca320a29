import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from featdiff.config.study import PosttrainSettings
from featdiff.data.prompts import Prompt
from featdiff.models.loading import ModelSource
from featdiff.posttraining.rewards import exact_match
from featdiff.posttraining.teacher import load_traces, write_traces

PROMPTS = [Prompt("a", "2+2=", "4"), Prompt("b", "3+2=", "5")]
MANY = [Prompt(str(n), "what is " * (n % 3) + f"{n}+1=", "0") for n in range(7)]


def given(folder: Path, rows: list[dict[str, str]]) -> PosttrainSettings:
    path = folder / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PosttrainSettings(prompts="p.jsonl", teacher=str(path))


def write(
    base: str, prompts: list[Prompt], path: Path, *, seed: int, temperature: float = 0.0, batch: int = 16
) -> None:
    write_traces(ModelSource(base), prompts, path, max_tokens=6, seed=seed, temperature=temperature, batch_size=batch)


def test_only_traces_that_end_in_the_right_answer_are_kept(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "completion": "two and two. answer: 4"},
        {"id": "a", "completion": "answer: 5"},
        {"id": "b", "completion": ""},
        {"id": "z", "completion": "answer: 4"},
    ]
    traces = load_traces(given(tmp_path, rows), PROMPTS, exact_match)
    assert [(trace.id, trace.prompt, trace.completion) for trace in traces.kept] == [
        ("a", "2+2=", rows[0]["completion"])
    ]
    assert (traces.wrong, traces.unmatched) == (2, 1)


def test_traces_without_ids_are_matched_by_the_text_of_the_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": "3+2=", "completion": "5"}, {"prompt": "9+9=", "completion": "18"}]
    traces = load_traces(given(tmp_path, rows), PROMPTS, exact_match)
    assert [trace.id for trace in traces.kept] == ["b"] and traces.unmatched == 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"id": "a", "completion": "5"}, "none of the 1 traces .* 1 end wrongly"),
        ({"completion": "4"}, "neither the column 'id' nor 'prompt'"),
        ({"id": "a"}, "has no column 'completion'"),
    ],
)
def test_useless_traces_are_refused(tmp_path: Path, row: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_traces(given(tmp_path, [row]), PROMPTS, exact_match)


def completions(path: Path) -> list[str]:
    return [json.loads(line)["completion"] for line in path.read_text().splitlines()]


def test_a_greedy_teacher_takes_the_likeliest_token_every_time(base: str, tmp_path: Path) -> None:
    write(base, MANY, tmp_path / "t.jsonl", seed=0, batch=3)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    for prompt, completion in zip(MANY, completions(tmp_path / "t.jsonl"), strict=True):
        ids = tokenizer(prompt.prompt, return_tensors="pt")["input_ids"]
        length = ids.shape[1]
        with torch.no_grad():
            while ids.shape[1] < length + 6 and ids[0, -1] != tokenizer.eos_token_id:
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        assert completion == tokenizer.decode(ids[0, length:], skip_special_tokens=True)


def test_sampled_traces_are_the_seeds_and_leave_the_global_generator_alone(base: str, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        write(base, MANY, tmp_path / name, seed=seed, temperature=1.0)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "again").read_bytes() != (tmp_path / "two").read_bytes()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bytes_left", [0, 40, 150, 250])
def test_a_killed_teacher_ends_with_the_same_bytes(base: str, tmp_path: Path, bytes_left: int) -> None:
    path = tmp_path / "t.jsonl"
    write(base, MANY, path, seed=1, temperature=1.0, batch=2)
    undisturbed = path.read_bytes()
    path.write_bytes(undisturbed[:bytes_left])
    write(base, MANY, path, seed=1, temperature=1.0, batch=2)
    assert path.read_bytes() == undisturbed


def test_a_prompt_that_fills_the_teachers_context_gets_an_empty_trace(base: str, tmp_path: Path) -> None:
    prompts = [Prompt("long", "x" * 64, "4"), PROMPTS[0]]
    write(base, prompts, tmp_path / "t.jsonl", seed=0)
    write(base, PROMPTS[:1], tmp_path / "alone.jsonl", seed=0)
    assert completions(tmp_path / "t.jsonl") == ["", *completions(tmp_path / "alone.jsonl")]
