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


def flops(inputs: CostInputs, paradigm: str, **settings: object) -> float:
    return cost(inputs, paradigm, **settings).work.flops


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


def rejecting(**settings: int) -> dict[str, object]:
    return {"rejection": {"max_completion_length": 6, "batch_size": 4, **settings}}


def test_samples_hold_the_keys_and_values_of_a_batch() -> None:
    inputs = paper()
    found = cost(inputs, "rft", rejection={"max_completion_length": 65_536, "batch_size": 64})
    keys_and_values = inputs.shape.cached_values * 2  # bytes in bfloat16
    assert found.memory["cached keys and values"] == 64 * (65_536 + 128) * keys_and_values


def test_sft_reads_every_prompt_with_its_trace_once_forward_and_twice_backward(small: CostInputs) -> None:
    expected = 12 * 30 * 3 * small.shape.forward(15)
    assert flops(small, "sft") == pytest.approx(expected)
    assert flops(small, "sft", sft__epochs=2) == pytest.approx(2 * expected)
    assert flops(small, "sft", sft__max_length=15) < expected / 2


def test_grpo_samples_prices_and_trains_on_every_rollout(small: CostInputs) -> None:
    found, forward, rollouts = flops(small, "grpo"), small.shape.forward, 12 * 2
    sampled = rollouts * (8 * forward(14) + 10 * forward(5))  # to the limit of 8
    assert found == pytest.approx(sampled + rollouts * 16 * 4 * forward(8))
    with_reference = cost(small, "grpo", grpo__beta=0.1)
    assert with_reference.work.flops - found == pytest.approx(rollouts * 16 * forward(8))
    assert with_reference.memory["reference model"] == 4 * small.shape.parameters


def test_tuning_holds_eighteen_bytes_a_parameter_and_what_enters_every_block() -> None:
    kept, memory = cost(replace(paper(), on_gpu=False), "grpo").memory, cost(paper(), "grpo").memory
    assert memory["weights, gradients, moments"] == pytest.approx(18 * 4.02e9, rel=0.001)
    assert kept["activations"] > 5 * memory["activations"]


def test_a_teacher_writes_every_trace_to_its_limit_and_is_no_part_of_training() -> None:
    inputs = paper()
    found = cost(inputs, "sft")
    assert inputs.teacher is not None
    read = 47_000 / 16 * 16_384 * 2 * inputs.teacher.parameters  # all weights for every token of a batch of 16
    given = cost(replace(inputs, teacher=None), "sft", teacher_model=None, teacher="t.jsonl")
    assert found.work.seconds - given.work.seconds > read / inputs.hardware.bandwidth and found.stays > given.stays


def test_vllm_takes_its_share_of_the_memory_and_as_many_sequences_as_fit() -> None:
    inputs = paper()
    found = cost(inputs, "grpo")
    assert found.memory["vLLM"] == 0.3 * 141e9
    roomier = replace(inputs, hardware=replace(inputs.hardware, memory=2 * 141e9))
    assert cost(roomier, "grpo").work.seconds < found.work.seconds


def test_samples_are_drawn_until_enough_are_right_and_those_are_trained_on(small: CostInputs) -> None:
    one = 6 * small.shape.forward(13) + 10 * small.shape.forward(5)  # the prompt, and six tokens after it
    a_trace = 3 * 16 * small.shape.forward(8)

    def found(right: float, **settings: int) -> float:
        assumed = replace(small.assumed, right=right)
        return flops(replace(small, assumed=assumed), "rft", **rejecting(**settings))

    assert found(1.0, samples=3) == pytest.approx(12 * (one + a_trace))
    assert found(0.5, samples=1) == pytest.approx(12 * (one + a_trace / 2))
    assert found(0.5, samples=4, kept=2) == pytest.approx(12 * (4 * one + 2 * a_trace))
