"""Policies: loading a model for training, its end tokens, and its context length."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import torch
from huggingface_hub import constants
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from featdiff.models.loading import ModelSource
from featdiff.models.logging import quiet_transformers

NO_LIMIT = 2**62


def load_policy(base: ModelSource) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model for training, and its tokenizer, which has an end token and pads.

    Weights are float32 whatever `base.dtype` is: at a learning rate of 1e-6 a step is smaller than the spacing of
    bfloat16, and would be lost. With bfloat16 the forward pass runs under autocast, and checkpoints are written in it.
    """
    device, visible = torch.device(base.device), torch.cuda.device_count()
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"lineup.device is {base.device}, but torch sees no GPU; set it to cpu")
    if device.type == "cuda" and (device.index or visible > 1):
        raise ValueError(
            f"post-training runs on one GPU, but lineup.device is {base.device} and {visible} are visible; "
            "set CUDA_VISIBLE_DEVICES to one of them and lineup.device to cuda"
        )
    if base.dtype == "float16":
        raise ValueError("post-training cannot run in float16; set lineup.dtype to bfloat16 or float32")
    tokenizer = base.tokenizer()
    require_end_token(tokenizer, base.path)
    model = replace(base, dtype="float32").model()
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise ValueError(f"the weights of {base.path} hold NaN or infinity; give another base")
    return model.requires_grad_(True), tokenizer


def require_end_token(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Refuse a tokenizer without end token; let one without padding token pad with it."""
    if tokenizer.eos_token is None:
        raise ValueError(
            f"the tokenizer of {path} has no eos token, so no completion would end; set eos_token in its folder"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a completion: the tokenizer's, and those that the model declares."""
    of_model = getattr(model.generation_config, "eos_token_id", None)
    declared = [tokenizer.eos_token_id, *(of_model if isinstance(of_model, list) else [of_model])]
    return sorted({token for token in declared if isinstance(token, int)})


def context_length(model: PreTrainedModel) -> int:
    """Tokens that the model can read; without limit where its configuration names none."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or NO_LIMIT


@contextmanager
def quiet_trl() -> Generator[None]:
    """Keep banners, bars and advice of transformers and TRL off the terminal, and send no usage statistics."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("trl", "accelerate"))}
    statistics = constants.HF_HUB_DISABLE_TELEMETRY
    try:
        constants.HF_HUB_DISABLE_TELEMETRY = True
        for logger in levels:
            logger.setLevel(logging.ERROR)
        with quiet_transformers(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(transformers|trl|torch|accelerate)\b")
            yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = statistics
        for logger, level in levels.items():
            logger.setLevel(level)
