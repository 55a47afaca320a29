"""A base of a few thousand parameters, for every test of post-training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SIGNS = "0123456789+=?: .abcdefghijklmnopqrstuvwxyz"


def tiny_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """One token a character; every text begins with <bos>."""
    vocabulary = {sign: index for index, sign in enumerate(["<pad>", "<eos>", "<bos>", *SIGNS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", **special)


def save_tiny_base(folder: Path, **special: str) -> str:
    tokenizer = tiny_tokenizer(**special)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        eos_token_id=1,
        bos_token_id=2,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random model with a tokenizer that has an end token and no padding token."""
    return save_tiny_base(tmp_path_factory.mktemp("base"), eos_token="<eos>")


@pytest.fixture
def make_base(tmp_path: Path) -> Callable[..., str]:
    """Makes a base whose tokenizer has the special tokens given."""
    return lambda **special: save_tiny_base(tmp_path / "made", **special)
