"""Small random models, a crosscoder of them, and items, for tests of edits."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from featdiff.config.crosscoder import ReLU
from featdiff.crosscoder.model import Crosscoder
from featdiff.evaluation.results import Requests
from featdiff.models.loading import Lineup

VOCABULARY, WIDTH, BLOCKS = 40, 16, 4
NAMES = ("base", "sft", "rl")
_SIZE = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 2}
_COMMON = {**_SIZE, "intermediate_size": 32, "bos_token_id": 0, "eos_token_id": 0}
ARCHITECTURES = {
    "qwen3": ("qwen3", {**_COMMON, "num_key_value_heads": 1, "head_dim": 8}),
    "qwen2": ("qwen2", {**_COMMON, "num_key_value_heads": 1}),
    "windows": (
        "qwen2",
        {**_COMMON, "num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2},
    ),
    "llama": ("llama", {**_COMMON, "num_key_value_heads": 1}),
    "gpt2": ("gpt2", {**_SIZE, "bos_token_id": 0, "eos_token_id": 0}),
    "gpt_neox": ("gpt_neox", _COMMON),
}


def tiny_model(architecture: str = "qwen3", seed: int = 0) -> PreTrainedModel:
    """A random causal language model whose weights are large enough for edits to make a difference."""
    torch.manual_seed(seed)
    kind, settings = ARCHITECTURES[architecture]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    return model.eval().requires_grad_(False)


def tiny_lineup(layers: int = 2, architecture: str = "qwen3") -> Lineup:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    models = tuple(tiny_model(architecture, seed) for seed in range(len(NAMES)))
    return Lineup(names=NAMES, models=models, tokenizer=tokenizer, layers=layers, d_model=WIDTH)


def random_crosscoder(models: tuple[str, ...] = NAMES) -> Crosscoder:
    """Random features, of which about half fire on a token, in the final gauge and with unequal scales."""
    crosscoder = Crosscoder(models=models, d_model=WIDTH, features=24, sparsity=ReLU(weight=2.0))
    with torch.no_grad():
        crosscoder.scale.copy_(torch.tensor([0.5, 1.0, 2.0])[: len(models)])
    return crosscoder.canonicalise()


def random_requests(samples: int = 9, choices: int = 4) -> Requests:
    """Items of various length; continuations of one to three tokens."""
    generator = torch.Generator().manual_seed(0)

    def tokens(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high + 1, (1,), generator=generator))
        return torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()

    contexts = [tokens(3, 12) for _ in range(samples)]
    continuations = [tokens(1, 3) for _ in range(samples * choices)]
    return Requests(
        task="toy",
        sample_ids=tuple(str(sample) for sample in range(samples)),
        choice_counts=torch.full((samples,), choices),
        target=torch.randint(0, choices, (samples,), generator=generator),
        context_ids=[context for context in contexts for _ in range(choices)],
        continuation_ids=continuations,
        choice_characters=torch.tensor([float(len(continuation)) for continuation in continuations]),
    )
