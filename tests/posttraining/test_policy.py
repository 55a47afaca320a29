import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

from featdiff.models.loading import ModelSource
from featdiff.posttraining.policy import context_length, end_tokens, load_policy, quiet_trl


def load(path: str, dtype: str = "float32") -> tuple[object, object]:
    return load_policy(ModelSource(path, dtype))


def test_a_policy_has_gradients_and_float32_weights_whatever_the_precision(base: str) -> None:
    model, _ = load_policy(ModelSource(base, "bfloat16"))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_a_tokenizer_without_padding_token_pads_with_the_end_token(base: str) -> None:
    model, tokenizer = load_policy(ModelSource(base))
    assert tokenizer.pad_token == tokenizer.eos_token == "<eos>"
    assert context_length(model) == 64


def test_the_models_end_tokens_join_the_tokenizers(base: str) -> None:
    model, tokenizer = load_policy(ModelSource(base))
    assert model.generation_config is not None
    model.generation_config.eos_token_id = [7, 5]
    assert end_tokens(model, tokenizer) == [1, 5, 7]


def test_a_tokenizer_without_end_token_is_refused(make_base: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="no eos token"):
        load(make_base(pad_token="<pad>"))


def test_float16_is_refused(base: str) -> None:
    with pytest.raises(ValueError, match=r"set lineup\.dtype to bfloat16 or float32"):
        load(base, "float16")


def test_weights_that_are_no_numbers_are_refused(make_base: Callable[..., str]) -> None:
    path = make_base(eos_token="<eos>")
    model = Qwen3ForCausalLM.from_pretrained(path)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    model.save_pretrained(Path(path))
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        load(path)


def test_quiet_leaves_everything_as_it_was_even_after_an_error() -> None:
    def surroundings() -> tuple[object, ...]:
        bars = transformers_logging.is_progress_bar_enabled()
        level = logging.getLogger("trl").level
        return transformers_logging.get_verbosity(), bars, level, constants.HF_HUB_DISABLE_TELEMETRY

    before = surroundings()
    with pytest.raises(KeyError), quiet_trl():
        assert constants.HF_HUB_DISABLE_TELEMETRY and not transformers_logging.is_progress_bar_enabled()
        raise KeyError
    assert surroundings() == before
