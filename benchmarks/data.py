"""Activations with a known sparse dictionary, the same for every trainer.

x[m] = sum_k f_k row[k, m] + noise,   row[k, m] = strength[k, m] direction[k, m]

Directions are random and independent for every feature and model. 5 % of the features belong to each model alone, the
others to all. Feature k fires on c / (k + 32) of the tokens, c such that `l0` features fire on a token, with magnitude
0.5 plus an exponential of mean 0.5. Noise makes up 5 % of the variance. Units are those of training: the mean norm of
x[m] is sqrt(d_model).
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from task import Shape
from torch import Generator, Tensor

EXCLUSIVE = 0.05
FLATTENED = 32
NOISE = 0.05


def mixture(shape: Shape, l0: float, batches: int, seed: int = 0) -> tuple[Tensor, Iterator[Tensor]]:
    """The rows [features models d_model] of the true dictionary, and batches [tokens models d_model] made of them.

    ValueError where so many active features do not fit the law of the firing rates.
    """
    generator = Generator().manual_seed(seed)
    rates = _firing_rates(shape.features, l0)
    rows = torch.randn(shape.features, shape.models, shape.d_model, generator=generator)
    rows *= _strengths(shape, generator)[:, :, None] / rows.norm(dim=-1, keepdim=True)
    drawn = _drawn(rows, rates, shape.tokens, generator)
    rows *= (math.sqrt((1 - NOISE) * shape.d_model) / drawn.norm(dim=-1).mean(dim=0))[None, :, None]
    return rows, (_noisy(_drawn(rows, rates, shape.tokens, generator), generator) for _ in range(batches))


def write(folder: Path, shape: Shape, l0: float, batches: int) -> None:
    """The mixture as files that the workers read: rows.safetensors and batch-0.safetensors onwards."""
    rows, drawn = mixture(shape, l0, batches)
    save_file({"rows": rows}, folder / "rows.safetensors")
    for number, batch in enumerate(drawn):
        save_file({"batch": batch}, folder / f"batch-{number}.safetensors")


def read_batch(folder: Path, number: int) -> Tensor:
    """Batch `number` [tokens models d_model], from the start again after the last; a copy that owns its memory."""
    count = len(list(folder.glob("batch-*.safetensors")))
    return load_file(folder / f"batch-{number % count}.safetensors")["batch"].clone()


def read_rows(folder: Path) -> Tensor:
    """The true dictionary [features models d_model]; stays on disk until it is read."""
    return load_file(folder / "rows.safetensors")["rows"]


def _firing_rates(features: int, l0: float) -> Tensor:
    law = 1 / (torch.arange(features) + FLATTENED)
    rates = law * (l0 / law.sum())
    if rates[0] > 1:
        raise ValueError(f"{l0:g} of {features} features cannot be active on a token; lower --l0")
    return rates


def _strengths(shape: Shape, generator: Generator) -> Tensor:
    strengths = torch.ones(shape.features, shape.models)
    alone = torch.rand(shape.features, generator=generator) < EXCLUSIVE * shape.models
    owner = torch.randint(shape.models, (shape.features,), generator=generator)
    strengths[alone] = torch.eye(shape.models)[owner[alone]]
    return strengths


def _drawn(rows: Tensor, rates: Tensor, tokens: int, generator: Generator) -> Tensor:
    fires = torch.rand(tokens, len(rates), generator=generator) < rates
    magnitudes = torch.empty(tokens, len(rates)).exponential_(2.0, generator=generator) + 0.5
    return ((fires * magnitudes) @ rows.flatten(1)).view(tokens, *rows.shape[1:])


def _noisy(activations: Tensor, generator: Generator) -> Tensor:
    return activations + math.sqrt(NOISE) * torch.randn(activations.shape, generator=generator)


def main() -> None:
    """Write the files of one run; a process of its own, so that the controller needs no torch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("size", type=int, nargs=4, help="models, d_model, features, tokens")
    parser.add_argument("--l0", type=float, required=True)
    parser.add_argument("--batches", type=int, required=True)
    arguments = parser.parse_args()
    write(arguments.folder, Shape(*arguments.size), arguments.l0, arguments.batches)


if __name__ == "__main__":
    main()
