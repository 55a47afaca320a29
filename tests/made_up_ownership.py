"""A crosscoder of seven features whose owners are known, for tests of what is counted and shown of them."""

import torch
from torch import Tensor

from featdiff.analyses.ownership.compute import ownership
from featdiff.analyses.ownership.result import Ownership
from featdiff.attribution import Attribution, LatentScaling
from featdiff.attribution.latent_scaling import Ratios
from featdiff.config.study import AttributionSettings

PAIR = ("base", "rl")
MAS = torch.tensor([0.99, 0.95, 0.85, 0.82, 0.81, 0.99, 0.4])
NU_ERROR = [0.01, 0.02, 0.3, 0.05, float("nan"), 0.7, 1.6]
NU_RECONSTRUCTION = [0.1, 0.0, 0.0, 0.6, float("nan"), 0.9, 1.0]
ALIVE = torch.tensor([True, True, True, True, True, False, True])


def attribution() -> Attribution:
    """Above 0.8 and alive: five features of rl; a dead one beside them."""
    scores = torch.stack([1 - MAS, MAS], dim=1)
    return Attribution(PAIR, "normalised", scores, scores.clone(), torch.ones(7, 2, 2), torch.ones(7), ALIVE)


def scaling() -> LatentScaling:
    """Of these five: two absent, one shrunk (backwards), one rebuilt, one too rare."""
    feature = _ratios([-nu for nu in NU_ERROR], NU_RECONSTRUCTION)
    random, other = (_ratios([0.0, 0.04, 0.08, 0.12, float("nan"), 0.5, 0.9], [0.0] * 7) for _ in range(2))
    active = torch.full((7,), 200)
    return LatentScaling(
        PAIR, "normalised", feature, random, other, torch.ones(7, 2), torch.ones(7, 2), active, 1000, 100
    )


def made_up(tails: tuple[float, ...] = (0.8, 0.9)) -> Ownership:
    """What the stage finds of it."""
    return ownership(attribution(), scaling(), AttributionSettings(tails=tails))


def _ratios(error: list[float], reconstruction: list[float]) -> Ratios:
    def pair(nu: list[float]) -> Tensor:
        table = torch.ones(len(nu), 2, 2)
        table[:, 0, 1] = torch.tensor(nu)
        return table

    return Ratios(pair(error), pair(reconstruction))
