"""What it costs to pair the features of two large dictionaries, and whether the right ones are found.

    python benchmarks/matching.py

One dictionary is drawn at random. The other holds the same features in another order: most with a little noise, some
with much, some replaced. Peak memory includes both dictionaries.
"""

import argparse
import json
import time
from math import sqrt

import torch
from torch import Generator, Tensor
from worker import peak_mib

from featdiff.attribution.matching import match_decoders

NOISY, REPLACED = 0.2, 0.2
"""Shares of the features whose copy has a cosine of about `FAR` with them, and of those that have no copy."""
NEAR, FAR = 0.95, 0.6


def dictionaries(features: int, models: int, d_model: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two dictionaries [features models d_model], and where each feature of the first lies in the second; -1 where
    nowhere above 0.7."""
    generator = Generator().manual_seed(seed)
    one = torch.randn(features, models, d_model, generator=generator)
    place = torch.randperm(features, generator=generator)
    other = torch.empty_like(one)
    kind = torch.rand(features, generator=generator)
    for feature in range(features):
        cosine = 0.0 if kind[feature] < REPLACED else FAR if kind[feature] < REPLACED + NOISY else NEAR
        noise = torch.randn(models, d_model, generator=generator)
        other[place[feature]] = cosine * one[feature] + sqrt(1 - cosine**2) * noise
    return one, other, torch.where(kind < REPLACED + NOISY, -1, place)


def measured(features: int, models: int, d_model: int, seed: int) -> dict[str, float]:
    """Seconds, peak memory, and of the true pairs the share found; `false` counts pairs that are not there."""
    one, other, place = dictionaries(features, models, d_model, seed)
    before = peak_mib()
    start = time.perf_counter()
    partner = match_decoders(one, other, acceptance=0.7).partner
    seconds = time.perf_counter() - start
    there = place >= 0
    return {
        "features": features,
        "models": models,
        "d_model": d_model,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "peak_mib": peak_mib(),
        "peak_mib_before": before,
        "found": float((partner[there] == place[there]).float().mean()),
        "false": int((partner[~there] >= 0).sum()),
    }


def main() -> None:
    """Measure what the command line names, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=32768)
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--d-model", type=int, default=2560)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps(measured(arguments.features, arguments.models, arguments.d_model, arguments.seed), indent=1))


if __name__ == "__main__":
    main()
