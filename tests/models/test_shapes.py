"""Parameters and FLOPs that follow from a shape are those of real models; shapes come from where they may come from."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
)

from featdiff.models.loading import load_truncated
from featdiff.models.residual import residual
from featdiff.models.shapes import Shape, shape_of

POSITIONS = 48


def qwen3() -> PreTrainedModel:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=256,
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            tie_word_embeddings=True,
        )
    )


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=6,
            tie_word_embeddings=False,
        )
    )


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=256, n_embd=64, n_layer=5, n_head=4, n_positions=64))


def saved(model: PreTrainedModel, folder: Path) -> Shape:
    model.save_pretrained(folder)
    return shape_of(str(folder))


@pytest.mark.parametrize("make", [qwen3, llama, gpt2])
def test_flops_of_a_forward_pass_are_those_that_torch_counts(make, tmp_path: Path) -> None:
    model = make().eval()
    model.set_attn_implementation("eager")
    shape = saved(model, tmp_path)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.randint(0, 256, (2, POSITIONS)), use_cache=False)
    # What is left are the angles of rotary positions, one product of width 1 per position.
    assert counter.get_total_flops() == pytest.approx(2 * POSITIONS * shape.forward(POSITIONS), rel=5e-4)


@pytest.mark.parametrize("make", [qwen3, llama, gpt2])
@pytest.mark.parametrize("layers", [1, 2])
def test_flops_below_the_tap_are_those_of_a_truncated_model(make, layers: int, tmp_path: Path) -> None:
    shape = saved(make(), tmp_path)
    truncated = load_truncated(str(tmp_path), layers)
    truncated.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        residual(truncated, layers, torch.randint(0, 256, (2, POSITIONS)))
    expected = 2 * POSITIONS * shape.forward(POSITIONS, layers=layers, head=False)
    assert counter.get_total_flops() == pytest.approx(expected, rel=5e-4)


def test_a_backward_pass_takes_twice_the_flops_of_a_forward_pass(tmp_path: Path) -> None:
    model = qwen3()
    model.set_attn_implementation("eager")
    shape = saved(model, tmp_path)
    ids = torch.randint(0, 256, (2, POSITIONS))
    with FlopCounterMode(display=False) as counter:
        model(ids, labels=ids, use_cache=False).loss.backward()
    assert counter.get_total_flops() == pytest.approx(3 * 2 * POSITIONS * shape.forward(POSITIONS), rel=5e-4)


@pytest.mark.parametrize("make", [qwen3, llama, gpt2])
def test_parameters_are_counted_to_the_last_bias(make, tmp_path: Path) -> None:
    model = make()
    shape = saved(model, tmp_path)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    truncated = load_truncated(str(tmp_path), 2)
    assert shape.below(2) == pytest.approx(sum(parameter.numel() for parameter in truncated.parameters()), rel=0.05)


def test_of_a_mixture_of_experts_a_token_passes_those_that_are_chosen(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        moe_intermediate_size=24,
        num_experts=8,
        num_experts_per_tok=2,
        decoder_sparse_step=1,
    )
    config.head_dim = 16
    config.save_pretrained(tmp_path)
    shape = shape_of(str(tmp_path))
    attention, router, one_expert = 32 * (2 * 32 + 2 * 16), 32 * 8, 3 * 32 * 24
    assert shape.active == attention + router + 2 * one_expert
    assert shape.block == pytest.approx(attention + router + 8 * one_expert, rel=0.01)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("Qwen/Qwen3-4B", 4.02e9),
        ("Qwen/Qwen3-32B", 32.8e9),
        ("Qwen/Qwen2.5-0.5B", 0.494e9),
        ("Qwen/Qwen2.5-7B", 7.62e9),
        ("meta-llama/Llama-3.1-8B", 8.03e9),
    ],
)
def test_public_models_have_the_published_number_of_parameters(name: str, published: float) -> None:
    assert shape_of(name).parameters == pytest.approx(published, rel=0.003)
    assert shape_of(f"{name}-Instruct") == shape_of(name)


@pytest.mark.parametrize(
    ("name", "layers", "whole", "below"),
    [("Qwen/Qwen3-4B", 18, 8.35e9, 3.78e9), ("Qwen/Qwen2.5-7B", 14, 14.35e9, 6.63e9)],
)
def test_flops_of_a_token_of_the_papers_bases(name: str, layers: int, whole: float, below: float) -> None:
    """Rows of 1,024 tokens, each of which attends to half of them on average; worked out by hand."""
    assert shape_of(name).forward(512) == pytest.approx(whole, rel=0.003)
    assert shape_of(name).forward(512, layers=layers, head=False) == pytest.approx(below, rel=0.003)


def test_a_hub_id_in_the_cache_is_read_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--base"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    llama().config.save_pretrained(repository / "snapshots" / "abc")
    assert (shape_of("owner/base").layers, shape_of("owner/base").d_model) == (3, 96)


def test_an_unknown_shape_is_refused_and_a_broken_config_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape of owner/base is not known here and nothing is downloaded"):
        shape_of("owner/base")
    with pytest.raises(ValueError, match="cannot read the model"):
        shape_of(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot read the model"):
        shape_of(str(tmp_path))
