"""T9: base, RL and every edit differ by noise alone; the effect on critical items looks large and is none."""

import numpy as np
import torch
from torch import Generator, Tensor

from featdiff.intervention.edits import Edit
from featdiff.intervention.effects import EditedAnswers, Effect, ItemSets, measure_effect
from featdiff.verify.check import Check

WORLDS = 60
RATE = 0.05
"""What is called supported by mistake, at most, and how often an interval may miss."""
NOISE = 0.6
"""Standard deviation of the noise on logits whose own is 1."""


def null(seed: int) -> list[Check]:
    """Many worlds: rates are within four of their standard errors."""
    effects = [_effect(WORLDS * seed + number) for number in range(WORLDS)]
    raw = [effect.sets["critical"].change for effect in effects]
    everything = [effect.sets["all"].change.value for effect in effects]
    supported = [effect.headline.verdict == "supported" for effect in effects]
    beyond = [effect.headline.beyond_controls for effect in effects]
    margin = 4 * (RATE * (1 - RATE) / WORLDS) ** 0.5
    covered = float(np.mean([part.low <= 0 <= part.high for part in beyond]))
    return [
        Check("T9", "raw change of rl on critical items", -0.25, _mean([part.value for part in raw]), relation="<="),
        Check("T9", "share of raw intervals that exclude 0", 0.95, _mean([part.high < 0 for part in raw]), 0, ">="),
        Check("T9", "change on all items", 0, _mean(everything), 0.02),
        Check("T9", "share called supported", RATE, _mean(supported), margin, "<="),
        Check("T9", "share of intervals beside controls that hold 0", 1 - RATE, covered, margin, ">="),
    ]


def _effect(seed: int, draws: int = 150, items: int = 500, choices: int = 4) -> Effect:
    generator = Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, items, choices, generator=generator)

    knowledge = noise()
    base, rl = (knowledge + NOISE * noise() for _ in range(2))
    base_right, before = base.argmax(dim=-1) == 0, rl.argmax(dim=-1) == 0

    def answers() -> EditedAnswers:
        shaken = (rl + NOISE * noise(draws + 1)).argmax(dim=-1) == 0
        return EditedAnswers(shaken[0], shaken[1:])

    critical, mirror = ((right.nonzero().flatten()) for right in (~base_right & before, base_right & ~before))
    sets = ItemSets(critical, mirror, critical[::2])
    edit = Edit(torch.tensor([0]), 0.0)
    return measure_effect(
        "noise", "rl", edit, before, answers(), answers(), sets, resamples=1000, confidence=1 - RATE, seed=seed
    )


def _mean(values: list[float] | list[bool]) -> float:
    return float(np.mean(values))
