import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerControl, TrainerState, TrainingArguments

from featdiff.models.loading import ModelSource
from featdiff.posttraining.arguments import Training
from featdiff.posttraining.checkpoints import Checkpoints, equal_parts, is_finished


def training(folder: Path, base: str, dtype: str = "float32", checkpoints: int = 2) -> Training:
    return Training(ModelSource(base, dtype), folder, seed=0, checkpoints=checkpoints)


def keeper(folder: Path, base: str, dtype: str = "float32") -> Checkpoints:
    return Checkpoints("sft", training(folder, base, dtype), steps=4, boundary=1)


def log(checkpoints: Checkpoints, base: str, step: int, **numbers: float) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    state = TrainerState(global_step=step, max_steps=4)
    arguments = TrainingArguments(use_cpu=True, report_to="none")
    checkpoints.on_log(
        arguments, state, TrainerControl(), numbers, model=model, optimizer=optimizer, lr_scheduler=schedule
    )


def test_parts_of_a_run_by_hand() -> None:
    assert equal_parts(200, 5) == [40, 80, 120, 160, 200]
    assert equal_parts(7, 5) == [1, 3, 4, 6, 7]


@given(count=st.integers(1, 12), more=st.integers(0, 500))
def test_parts_are_distinct_end_with_the_run_and_differ_by_at_most_one(count: int, more: int) -> None:
    steps = count + more
    parts = equal_parts(steps, count)
    lengths = [after - before for before, after in zip([0, *parts], parts, strict=False)]
    assert parts[-1] == steps and min(lengths) >= 1 and max(lengths) - min(lengths) <= 1


def test_fewer_steps_than_checkpoints_are_refused(base: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"posttrain\.grpo makes 3 optimizer steps, too few for 5 checkpoints"):
        Checkpoints("grpo", training(tmp_path, base, checkpoints=5), steps=3, boundary=1)


@pytest.mark.parametrize("numbers", [{"loss": float("nan")}, {"loss": 1.0, "grad_norm": float("inf")}])
def test_a_loss_that_is_no_number_stops_the_run_with_nothing_written(
    base: str, tmp_path: Path, numbers: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=r"at step 2; lower posttrain\.sft\.lr"):
        log(keeper(tmp_path, base), base, 2, **numbers)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_published_checkpoint_is_a_plain_model_folder_in_the_wanted_precision(
    base: str, tmp_path: Path, dtype: str
) -> None:
    log(keeper(tmp_path, base, dtype), base, 2, loss=1.0)
    folder = tmp_path / "checkpoint-1"
    weights, original = load_file(folder / "model.safetensors"), load_file(Path(base) / "model.safetensors")
    assert weights.keys() == original.keys()  # the tied head is not written a second time
    assert all(torch.equal(weights[name], original[name].to(getattr(torch, dtype))) for name in original)
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == getattr(torch, dtype)
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (folder, base)]
    assert tokenizers[0].pad_token == tokenizers[1].pad_token
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_a_state_follows_each_checkpoint_but_the_last(base: str, tmp_path: Path) -> None:
    checkpoints = keeper(tmp_path, base)
    for step in (1, 2, 3):
        log(checkpoints, base, step, loss=1.0)
    assert [path.name for path in tmp_path.glob("state*")] == ["state-2"] and not is_finished(training(tmp_path, base))
    log(checkpoints, base, 4, loss=1.0)
    assert [path.name for path in tmp_path.glob("state*")] == ["state-2"] and is_finished(training(tmp_path, base))
    assert not list(tmp_path.glob("state*"))


def test_the_log_has_a_line_a_step_and_skips_the_summary(base: str, tmp_path: Path) -> None:
    checkpoints = keeper(tmp_path, base)
    log(checkpoints, base, 1, loss=3.0, step_time=0.1)
    log(checkpoints, base, 4, train_runtime=1.0)
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        {"step": 1, "loss": 3.0}
    ]
