"""What `train` records in a run: how well each crosscoder fits held-out text."""

from dataclasses import dataclass

from featdiff.files import load
from featdiff.run.plan import Plan

Shares = dict[str, float | None]
"""By model; None where the share is not defined."""


@dataclass(frozen=True)
class HeldOutFit:
    """How well a crosscoder fits text that it was not trained on."""

    variance_explained: Shares
    l0: float
    """Active features per token."""
    dead_share: float
    """Share of features that fired on no token."""
    tokens: int
    ce_recovered: Shares | None = None
    """None where nothing was spliced into the models."""
    kl_recovered: Shares | None = None


def fit_of(plan: Plan, name: str) -> HeldOutFit:
    """The fit of one crosscoder of the run on held-out text."""
    return load(HeldOutFit, plan.run.path("crosscoders", name, "quality.json"))
