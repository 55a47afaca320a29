"""Parameters and FLOPs that follow from a shape are those of real models; shapes come from where they may come from."""

import json
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
)

from featdiff.costs.shapes import PUBLIC, Shape, shape_of
from featdiff.models.loading import load_truncated
from featdiff.models.residual import residual

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
    return shape_of(str(folder), {}).shape


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
def test_parameters_are_those_of_the_model_but_for_biases_and_positions(make, tmp_path: Path) -> None:
    model = make()
    assert saved(model, tmp_path).parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.03)


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
def test_public_shapes_have_the_published_number_of_parameters(name: str, published: float) -> None:
    assert PUBLIC[name].parameters == pytest.approx(published, rel=0.003)


@pytest.mark.parametrize(
    ("name", "layers", "whole", "below"),
    [("Qwen/Qwen3-4B", 18, 8.35e9, 3.78e9), ("Qwen/Qwen2.5-7B", 14, 14.35e9, 6.63e9)],
)
def test_flops_of_a_token_of_the_papers_bases(name: str, layers: int, whole: float, below: float) -> None:
    """Rows of 1,024 tokens, each of which attends to half of them on average; worked out by hand."""
    assert PUBLIC[name].forward(512) == pytest.approx(whole, rel=0.003)
    assert PUBLIC[name].forward(512, layers=layers, head=False) == pytest.approx(below, rel=0.003)


def test_a_variant_has_the_public_shape_of_its_base_and_says_so() -> None:
    known = shape_of("Qwen/Qwen3-4B-Base", {})
    assert known.shape == PUBLIC["Qwen/Qwen3-4B"] and known.origin == "public config.json of Qwen/Qwen3-4B"


def test_a_hub_id_in_the_cache_is_read_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--base"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    llama().config.save_pretrained(repository / "snapshots" / "abc")
    assert shape_of("owner/base", {}).shape == Shape(3, 96, 6, 6, 16, 256, 512, tied=False)


def test_an_unknown_shape_must_be_given() -> None:
    with pytest.raises(ValueError, match="nothing is downloaded; give it with --shape layers=N,d_model=N"):
        shape_of("owner/base", {})
    given = {"layers": 2.0, "d_model": 64.0, "heads": 4.0, "mlp": 128.0, "vocabulary": 100.0}
    assert shape_of("owner/base", given).shape == Shape(2, 64, 4, 4, 16, 128, 100)


def test_what_is_given_goes_over_what_is_known() -> None:
    known = shape_of("Qwen/Qwen3-4B", {"layers": 20.0, "tied": 0.0})
    assert (known.shape.layers, known.shape.tied, known.shape.mlp) == (20, False, 9728)
    assert known.origin == "public config.json of Qwen/Qwen3-4B, changed by --shape"


def test_of_a_mixture_of_experts_the_width_must_be_given(tmp_path: Path) -> None:
    qwen3().config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"num_experts": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="--shape mlp=N"):
        shape_of(str(tmp_path), {})
    assert shape_of(str(tmp_path), {"mlp": 320.0}).shape.mlp == 320


def test_a_folder_without_a_config_and_a_size_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        shape_of(str(tmp_path), {})
    with pytest.raises(ValueError, match="layers=0 is no size"):
        shape_of("Qwen/Qwen3-4B", {"layers": 0.0})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot read"):
        shape_of(str(tmp_path), {})
