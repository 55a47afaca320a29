"""What `train` records in a run: how well each crosscoder fits held-out text, and what the models read."""

from collections.abc import Mapping
from dataclasses import dataclass

from featdiff.activations.buffer import StreamCounts
from featdiff.crosscoder.metrics import Quality, SplicedLosses
from featdiff.files import load
from featdiff.run.plan import Plan

STREAM = "stream.json"
FIT = "quality.json"

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

    @staticmethod
    def of(found: Quality, losses: Mapping[str, SplicedLosses] | None = None) -> "HeldOutFit":
        """The fit as it was measured; `losses` by model, where the reconstruction was spliced in."""
        explained = zip(found.models, found.variance_explained.tolist(), strict=True)
        return HeldOutFit(
            variance_explained={model: _defined(share) for model, share in explained},
            l0=found.l0,
            dead_share=found.dead_share,
            tokens=found.tokens,
            ce_recovered={model: _defined(one.ce_recovered) for model, one in losses.items()} if losses else None,
            kl_recovered={model: _defined(one.kl_recovered) for model, one in losses.items()} if losses else None,
        )


@dataclass(frozen=True)
class StreamRecord:
    """What the models read to train the crosscoders of a run."""

    counts: StreamCounts
    """Of one epoch; every epoch reads the same tokens."""
    epochs: int
    layers: int
    """Blocks below the tap."""
    d_model: int
    scale: dict[str, float]
    """By model: raw = scale x normalised."""
    largest_norm: dict[str, float]
    """By model: beyond it a token is a sink."""


def fit_of(plan: Plan, name: str) -> HeldOutFit:
    """The fit of one crosscoder of the run on held-out text."""
    return load(HeldOutFit, plan.run.path("crosscoders", name, FIT))


def stream_of(plan: Plan) -> StreamRecord:
    """What the models of the run have read."""
    return load(StreamRecord, plan.run.path("crosscoders", STREAM))


def _defined(value: float) -> float | None:
    return None if value != value else value


@dataclass(frozen=True)
class TraceCounts:
    """What SFT was trained on: teacher traces whose final answer is right (`posttrain/sft/traces.json`)."""

    prompts: int
    kept: int
    wrong: int
    unmatched: int


@dataclass(frozen=True)
class SampleCounts:
    """What rejection sampling was trained on: RL's own right answers (`posttrain/rft/traces.json`)."""

    prompts: int
    unanswered: int
    drawn: int
    kept: int
    wrong: int
    repeated: int
