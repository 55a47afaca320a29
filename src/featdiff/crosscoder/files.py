"""The two files that hold a crosscoder, and the one that holds how often its features fire."""

import json
from pathlib import Path

import safetensors
from safetensors.torch import load_file
from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "crosscoder.safetensors"
QUALITY = "quality.safetensors"
"""What training measured on held-out text, where it did: `density` [features] and `mean` [models d_model]."""


def read_config(path: Path) -> dict[str, object]:
    """config.json; ValueError where it is missing or no JSON object."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; point to a folder that a training run or Crosscoder.save wrote")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); restore or retrain it") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} does not describe a crosscoder; restore or retrain it")
    return config


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor by name; ValueError where the file is missing or damaged."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; point to a folder that a training run or Crosscoder.save wrote")
    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); restore or retrain it") from error


def read_density(path: Path, features: int) -> Tensor | None:
    """Share of held-out tokens on which each feature fires; None where it was not measured."""
    if not path.is_file():
        return None
    density = read_weights(path).get("density")
    if density is None or density.shape != (features,):
        raise ValueError(f"{path} holds no density of {features} features; restore or retrain it")
    return density
