"""SFT and GRPO: FLOPs by hand, files as large as real ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planned import paper, planned, varied
from tiny_study import random_model, write_posttrained_study
from transformers import TrainerState

from featdiff.config.study_file import read_study
from featdiff.costs.estimate import Cost, CostInputs
from featdiff.posttraining.cost import grpo, rft, sft
from featdiff.posttraining.state import save_state

STAGES = {"sft": sft, "grpo": grpo, "rft": rft}


@pytest.fixture
def small(tmp_path: Path) -> CostInputs:
    """Twelve prompts; SFT in batches of 2, GRPO with 2 rollouts of 4 prompts at a time, on a CPU."""
    study = read_study(write_posttrained_study(tmp_path))
    return planned(study, prompt_tokens=10, trace_tokens=20, completion_tokens=6)


def cost(inputs: CostInputs, paradigm: str, **settings: object) -> Cost:
    settings = {f"posttrain__{name}": value for name, value in settings.items()}
    return STAGES[paradigm](varied(inputs, **settings))


def flops(found: Cost, part: str) -> float:
    return found.parts[part].flops


def test_sft_reads_every_prompt_with_its_trace_once_forward_and_twice_backward(small: CostInputs) -> None:
    expected = 12 * 30 * 3 * small.shape.forward(15)
    assert flops(cost(small, "sft"), "training") == pytest.approx(expected)
    assert flops(cost(small, "sft", sft__epochs=2), "training") == pytest.approx(2 * expected)
    assert flops(cost(small, "sft", sft__max_length=15), "training") < expected / 2


def test_grpo_samples_prices_and_trains_on_every_rollout(small: CostInputs) -> None:
    found, forward = cost(small, "grpo"), small.shape.forward
    rollouts = 12 * 2
    assert flops(found, "rollouts") == pytest.approx(
        rollouts * (8 * forward(14) + 10 * forward(5))
    )  # to the limit of 8
    assert flops(found, "training") == pytest.approx(rollouts * 16 * 4 * forward(8))
    with_reference = cost(small, "grpo", grpo__beta=0.1)
    assert flops(with_reference, "training") == pytest.approx(5 / 4 * flops(found, "training"))
    assert with_reference.memory["reference model"] == 4 * small.shape.parameters


def test_prompts_after_the_last_whole_generation_are_not_trained_on(small: CostInputs) -> None:
    assert flops(cost(small, "grpo", limit=11), "training") == flops(cost(small, "grpo", limit=8), "training")


def test_checkpoints_and_states_are_as_large_as_real_ones(small: CostInputs, tmp_path: Path) -> None:
    found = cost(small, "sft")
    checkpoint = (tmp_path / "base" / "model.safetensors").stat().st_size
    assert found.stays == pytest.approx(2 * checkpoint, rel=0.1)  # 2 kB of header, beside 180 kB

    model = random_model(seed=0)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    save_state(tmp_path / "state", model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer), TrainerState())
    state = sum(file.stat().st_size for file in (tmp_path / "state").glob("*.safetensors"))
    assert found.passing == pytest.approx(2 * state, rel=0.1)


def test_a_teacher_writes_every_trace_to_its_limit_and_is_no_part_of_training() -> None:
    inputs = paper()
    found = cost(inputs, "sft")
    assert inputs.teacher is not None
    read = 47_000 / 16 * 16_384 * 2 * inputs.teacher.parameters  # all weights for every token of a batch of 16
    given = cost(replace(inputs, teacher=None), "sft", teacher_model=None, teacher="t.jsonl")
    assert found.parts["teacher's traces"].seconds > read / inputs.hardware.bandwidth and found.stays > given.stays
    assert "teacher's traces" not in given.parts and given.parts["training"] == found.parts["training"]


def test_vllm_takes_its_share_of_the_memory_and_as_many_sequences_as_fit() -> None:
    inputs = paper()
    found = cost(inputs, "grpo")
    assert found.memory["vLLM"] == 0.3 * 141e9
    roomier = replace(inputs, hardware=replace(inputs.hardware, memory=2 * 141e9))
    assert cost(roomier, "grpo").parts["rollouts"].seconds < found.parts["rollouts"].seconds


def rejecting(**settings: int) -> dict[str, object]:
    return {"rejection": {"max_completion_length": 6, "batch_size": 4, **settings}}


def test_samples_are_drawn_until_enough_are_right(small: CostInputs) -> None:
    one = 6 * small.shape.forward(13) + 10 * small.shape.forward(5)  # the prompt, and six tokens after it
    small = replace(small, assumed=replace(small.assumed, right=0.5))

    def drawn(**settings: int) -> float:
        return flops(cost(small, "rft", **rejecting(**settings)), "samples") / one

    assert drawn(samples=1) == 12 and drawn(samples=3) == 12 * (1 + 1 / 2 + 1 / 4)
    assert drawn(samples=3, kept=2) == 12 * (1 + 1 + 3 / 4)  # two are lacking unless the first two are right


def test_the_control_is_trained_as_sft_on_what_is_kept(small: CostInputs) -> None:
    def training(right: float, **settings: int) -> float:
        found = cost(replace(small, assumed=replace(small.assumed, right=right)), "rft", **rejecting(**settings))
        return flops(found, "training")

    a_trace = 3 * 16 * small.shape.forward(8)
    assert training(1.0) == pytest.approx(12 * a_trace) and training(1.0, kept=2) == pytest.approx(24 * a_trace)
    assert training(0.5, samples=2) == pytest.approx(12 * 3 / 4 * a_trace)


def test_samples_hold_the_keys_and_values_of_a_batch() -> None:
    inputs = paper()
    found = cost(inputs, "rft", rejection={"max_completion_length": 65_536, "batch_size": 64})
    keys_and_values = inputs.shape.cached_values * 2  # bytes in bfloat16
    assert found.memory["cached keys and values"] == 64 * (65_536 + 128) * keys_and_values
