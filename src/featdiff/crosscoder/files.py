"""The two files that hold a crosscoder, and the one that holds how often its features fire."""

from collections.abc import Mapping
from pathlib import Path

import safetensors
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from featdiff.config.crosscoder import CrosscoderConfig
from featdiff.files import write_text

CONFIG = "config.json"
WEIGHTS = "crosscoder.safetensors"
QUALITY = "quality.safetensors"
"""What training measured on held-out text, where it did: `density` [features] and `mean` [models d_model]."""


def write_files(folder: Path, weights: Mapping[str, Tensor], config: CrosscoderConfig) -> None:
    """Write both, the config last; each is complete or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{WEIGHTS}.part"
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, part)
    part.replace(folder / WEIGHTS)
    write_text(folder / CONFIG, config.model_dump_json(indent=2) + "\n")


def read_config(path: Path) -> CrosscoderConfig:
    """config.json; ValueError where it is missing or describes no crosscoder."""
    try:
        return CrosscoderConfig.model_validate_json(_there(path).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        reason = ": ".join([*map(str, first["loc"]), first["msg"]])
        raise ValueError(f"{path} does not describe a crosscoder ({reason}); restore or retrain it") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor by name; ValueError where the file is missing or damaged."""
    try:
        return load_file(_there(path))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); restore or retrain it") from error


def _there(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} is missing; point to a folder that a training run or Crosscoder.save wrote")
    return path


def read_density(path: Path, features: int) -> Tensor | None:
    """Share of held-out tokens on which each feature fires; None where it was not measured."""
    if not path.is_file():
        return None
    density = read_weights(path).get("density")
    if density is None or density.shape != (features,):
        raise ValueError(f"{path} holds no density of {features} features; restore or retrain it")
    return density
