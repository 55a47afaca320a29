"""The model that is trained: loading it, what its tokenizer must offer, and how long its texts may be."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from huggingface_hub import constants
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from featdiff.models.loading import load_model, load_tokenizer

NO_LIMIT = 2**62


def load_policy(
    path: str, *, dtype: str, device: str, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model that can be trained, and its tokenizer, which has an end token and pads.

    Weights are float32 whatever `dtype` is: at a learning rate of 1e-6 a step is smaller than the spacing of bfloat16,
    and would be lost. With bfloat16 the forward pass runs under autocast, and checkpoints are written in bfloat16.
    """
    _require_one_device(device)
    if dtype == "float16":
        raise ValueError("post-training cannot run in float16; set lineup.dtype to bfloat16 or float32")
    tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
    require_end_token(tokenizer, path)
    model = load_model(path, dtype="float32", device=device, trust_remote_code=trust_remote_code)
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise ValueError(f"the weights of {path} hold NaN or infinity; give another base")
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
    """Every token that ends a completion: the tokenizer's, and those that the model declares."""
    ends: set[int] = set()
    of_model = model.generation_config.eos_token_id if model.generation_config is not None else None
    for declared in (tokenizer.eos_token_id, of_model):
        match declared:
            case int(token):
                ends.add(token)
            case list(tokens):
                ends.update(token for token in tokens if isinstance(token, int))
    return sorted(ends)


def context_length(model: PreTrainedModel) -> int:
    """Tokens that the model can read; without limit where its configuration names none."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or NO_LIMIT


@contextmanager
def quiet() -> Iterator[None]:
    """Keep banners, bars and advice of transformers and TRL off the terminal, and send no usage statistics."""
    loggers = [logging.getLogger(name) for name in ("trl", "accelerate")]
    levels = [logger.level for logger in loggers]
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    statistics = constants.HF_HUB_DISABLE_TELEMETRY
    try:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        constants.HF_HUB_DISABLE_TELEMETRY = True
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(transformers|trl|torch|accelerate)\b")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        constants.HF_HUB_DISABLE_TELEMETRY = statistics
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _require_one_device(device: str) -> None:
    if device == "cpu":
        return
    if torch.device(device).type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"lineup.device is {device}, but torch sees no GPU; set it to cpu")
        if torch.device(device).index or torch.cuda.device_count() > 1:
            raise ValueError(
                f"post-training runs on one GPU, but lineup.device is {device} and {torch.cuda.device_count()} are "
                f"visible; set CUDA_VISIBLE_DEVICES to one of them and lineup.device to cuda"
            )
