"""Made-up trajectories of two checkpoints, as they are found and as they are shown."""

from dataclasses import replace

import torch

from featdiff.analyses.dynamics.compute import overlap_of
from featdiff.analyses.dynamics.result import CheckpointOverlap, Dynamics
from featdiff.attribution.trajectories import Alignment, Trajectory

BETWEEN = torch.tensor([[0.8, 0.4], [0.4, 0.5]])


def made_up(alignment: Alignment = "matched") -> CheckpointOverlap:
    """Two checkpoints with floors 0.8 and 0.5; three features ranked at the first of the top 4, of which one leaves."""
    found = Trajectory(
        checkpoints=("rl-1", "rl-2"),
        alignment=alignment,
        specificity=torch.rand(2, 9),
        ranked=torch.arange(8).view(2, 4),
        overlap=torch.tensor([[1.0, 0.6], [0.6, 1.0]]),
        chance=0.1,
        noise_floor=0.65,
        rank_shift=torch.tensor([[0.0, 1.0, torch.nan, torch.nan]]),
        counted=(3, 4),
        between_seeds=BETWEEN,
        seeds=2,
    )
    return overlap_of(found)


def one_seed(alignment: Alignment = "matched") -> CheckpointOverlap:
    """The same with one seed: nothing is known of the noise."""
    return replace(made_up(alignment), seeds=1, noise_floor=None, floors=None, between_seeds=None, relative=None)


def of(*found: CheckpointOverlap, missing: dict[Alignment, str] | None = None) -> Dynamics:
    """One tuned model under these alignments."""
    return Dynamics({one.alignment: one for one in found}, missing or {})
