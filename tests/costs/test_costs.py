"""Costs that follow from sizes: real files hold these bytes, torch counts these FLOPs, and measured steps take these
times."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode

from featdiff.costs.costs import (
    CrosscoderSize,
    Model,
    crosscoder_training,
    dense_steps,
    exchange,
    sampling,
    sparse_steps,
    tuning_memory,
)
from featdiff.costs.hardware import Hardware, Work
from featdiff.costs.shapes import PUBLIC, Shape
from featdiff.crosscoder import Crosscoder, ReLU
from featdiff.crosscoder.checkpoint import Checkpoint, Checkpoints
from featdiff.crosscoder.sparsity import BatchTopK, JumpReLU, Sparsity
from featdiff.crosscoder.step import Learner

PAPER = CrosscoderSize(models=3, d_model=2560, features=32768)
H200 = Hardware("H200", 1, bf16=989e12, fp32=67e12, bandwidth=4800e9, memory=141e9, link=450e9)
CORE = Hardware("cpu of 1 core", 1, 0.5e12, 0.25e12, 45e9, 24e9, 45e9, product_share=0.85)
SHAPE = Shape(layers=4, d_model=64, heads=4, kv_heads=2, head_dim=16, mlp=128, vocabulary=100)


def milliseconds(work: tuple[Work, ...], hardware: Hardware) -> float:
    return 1e3 * sum(one.seconds(hardware) for one in work)


def tensor_bytes(file: Path) -> int:
    """Size of a safetensors file without its header."""
    with file.open("rb") as opened:
        return file.stat().st_size - 8 - int.from_bytes(opened.read(8), "little")


@pytest.mark.parametrize("sparsity", [ReLU(), BatchTopK(k=4), JumpReLU()])
def test_files_of_a_crosscoder_hold_the_expected_bytes(sparsity: Sparsity, tmp_path: Path) -> None:
    crosscoder = Crosscoder(("base", "sft", "rl"), 16, 48, sparsity)
    size = CrosscoderSize(3, 16, 48, thresholds=isinstance(sparsity, JumpReLU))
    assert sum(parameter.numel() for parameter in crosscoder.parameters()) == size.parameters
    crosscoder.save(tmp_path)
    assert tensor_bytes(tmp_path / "crosscoder.safetensors") == size.file_bytes

    learner = Learner(crosscoder, lr=1e-3, betas=(0.9, 0.999), clip=1.0)
    Checkpoints(tmp_path / "checkpoints", {}).write(Checkpoint(1, False, learner.tensors()))
    (file,) = (tmp_path / "checkpoints").rglob("*.safetensors")
    with safe_open(file, framework="pt") as opened:
        assert "silent_tokens" in opened.keys()  # noqa: SIM118 -- safe_open is no mapping
    assert tensor_bytes(file) == pytest.approx(size.checkpoint_bytes, rel=0.01)


def test_the_papers_crosscoder_by_hand() -> None:
    assert PAPER.parameters == pytest.approx(503e6, rel=0.001)
    (products, adam) = dense_steps(PAPER, tokens=1024, steps=1)
    assert products.flops / 5 == pytest.approx(515e9, rel=0.001)
    assert adam.moved == pytest.approx(14.1e9, rel=0.002)


def test_a_dense_step_takes_the_five_products_that_autograd_does() -> None:
    crosscoder = Crosscoder(("base", "rl"), 128, 256, ReLU())
    with FlopCounterMode(display=False) as counter:
        crosscoder.loss(torch.randn(16, 2, 128)).total.backward()
    expected = dense_steps(CrosscoderSize(2, 128, 256), tokens=16, steps=1)[0].flops
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.005)  # the penalty takes a product of width 1


@pytest.mark.parametrize(("models", "d_model", "expected"), [(3, 2560, 6.1), (2, 2560, 4.0), (2, 3584, 5.7)])
def test_a_sparse_step_on_an_accelerator_takes_as_long_as_summed_operation_by_operation(
    models: int, d_model: int, expected: float
) -> None:
    size = CrosscoderSize(models, d_model, 32768)
    assert milliseconds(sparse_steps(size, 1024, 1, l0=100), H200) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("size", "sparse", "dense"),
    [(CrosscoderSize(2, 256, 4096), 27.8, 114.0), (CrosscoderSize(3, 1024, 16384), 427.0, 2877.0)],
    ids=["small", "medium"],
)
def test_steps_on_a_core_take_as_long_as_measured(size: CrosscoderSize, sparse: float, dense: float) -> None:
    """Milliseconds of one core of a Zen 5, batches of 1,024, with 64 active features per token."""
    assert milliseconds(sparse_steps(size, 1024, 1, l0=64), CORE) == pytest.approx(sparse, rel=0.15)
    assert milliseconds(dense_steps(size, 1024, 1), CORE) == pytest.approx(dense, rel=0.15)


def test_devices_send_gradients_or_reconstructions() -> None:
    assert exchange(PAPER, 1024, steps=1, groups=1, shards=1).sent == 0
    by_tokens, by_features = exchange(PAPER, 1024, 1, groups=4, shards=1), exchange(PAPER, 1024, 1, groups=1, shards=4)
    assert by_tokens.sent == 4 * 2 * 3 / 4 * 4 * PAPER.parameters
    assert by_features.sent == 4 * 2 * 3 / 4 * 4 * 1024 * 3 * 2560
    both = exchange(PAPER, 1024, 1, groups=2, shards=4)
    assert both.sent == 8 * 2 * 4 * (PAPER.parameters / 4 / 2 + 512 * 3 * 2560 * 3 / 4)


def test_an_l1_run_starts_dense_and_one_with_many_active_features_stays_so() -> None:
    def flops(l0: float, starts_dense: bool) -> float:
        training = crosscoder_training(PAPER, 1024, 20_000, l0, lr=1e-4, starts_dense=starts_dense)
        return sum(work.flops for work in training)

    dense, sparse = 20_000 * dense_steps(PAPER, 1024, 1)[0].flops, flops(100, starts_dense=False)
    assert flops(10_000, starts_dense=False) == dense
    assert flops(100, starts_dense=True) == pytest.approx(dense / 4 + 3 * sparse / 4)


def test_sampling_reads_all_weights_once_for_every_token_of_a_batch() -> None:
    model = Model(SHAPE, "fp32")
    work = sampling(model, sequences=8, batch=4, prompt=10, length=6, weight=2, recorded=False)
    keys_and_values = 2 * 4 * (2 * 16) * 4  # of two kinds, 4 blocks, 2 heads of 16, 4 bytes
    assert work.moved == 12 * (2 * SHAPE.parameters + 4 * 13 * keys_and_values)
    assert work.calls == 12 * 4
    assert sampling(model, 8, 4, 10, 6, weight=2, recorded=True).calls == 0


def test_tuning_holds_sixteen_bytes_a_parameter_and_what_enters_every_block() -> None:
    memory = tuning_memory(Model(PUBLIC["Qwen/Qwen3-4B"], "bf16"), tokens=16384, again=True)
    assert memory["weights, gradients, moments"] == pytest.approx(18 * 4.02e9, rel=0.001)
    assert memory["activations"] > 16384 * 36 * 2560 * 4
    kept = tuning_memory(Model(PUBLIC["Qwen/Qwen3-4B"], "bf16"), tokens=16384, again=False)
    assert kept["activations"] > 5 * memory["activations"]
