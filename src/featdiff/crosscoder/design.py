"""The choices about a crosscoder beside its size and sparsity; the defaults are the paper's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from featdiff.crosscoder.objectives import MSE, Objective, objective_from, objective_record


@dataclass(frozen=True)
class Linear:
    """pre = sum_m W_enc[m] a[m] + b_enc (Eq. 1, 5)."""


@dataclass(frozen=True)
class MLP:
    """pre = sum_m W_enc[m] a[m] + W_hidden relu(sum_m W_in[m] a[m] + b_hidden) + b_enc.

    W_hidden starts at 0, so that training begins at the linear encoder; what differs in the end, the hidden layer did.
    """

    width: int = 1024
    """Hidden units."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"{self}: width must be at least 1")


Encoder = Linear | MLP


@dataclass(frozen=True)
class Procrustes:
    """Train on activations of which every model after the first is turned onto the first (`alignment.py`)."""

    tokens: int = 100_000
    """Tokens from which the maps are estimated."""

    def __post_init__(self) -> None:
        if self.tokens < 2:
            raise ValueError(f"{self}: tokens must be at least 2, and should be many times d_model")


@dataclass(frozen=True)
class Shared:
    """The first features of the dictionary, with one decoder row for all models and a reduced penalty."""

    features: int
    """How many."""
    ratio: float = 0.15
    """Their penalty over that of the others."""

    def __post_init__(self) -> None:
        if self.features < 1 or not 0 < self.ratio <= 1:
            raise ValueError(f"{self}: features must be at least 1, and ratio above 0 and at most 1")


@dataclass(frozen=True)
class Design:
    """What a crosscoder is trained for, and which of its features are set apart beforehand (`blocks.py`)."""

    objective: Objective = MSE()  # noqa: RUF009 -- frozen
    encoder: Encoder = Linear()
    align: Procrustes | None = None
    shared: Shared | None = None
    partition: Mapping[str, float] = field(default_factory=dict)
    """Share of the dictionary by owners, their names joined by +."""


def design_from(record: Mapping[str, object]) -> Design:
    """The design that `design_record`, or the `crosscoder` section of a study, describes; ValueError for any other."""
    match dict(record):
        case {
            "objective": dict(objective),
            "encoder": dict(encoder),
            "align": dict(align),
            "shared": dict(shared),
            "partition": dict(partition),
        }:
            return Design(
                objective_from(objective),
                _encoder_from(encoder),
                _align_from(align),
                _shared_from(shared),
                {str(key): float(share) for key, share in partition.items()},
            )
        case _:
            raise ValueError("objective, encoder, align, shared or partition is missing")


def design_record(design: Design) -> dict[str, dict[str, str | int | float]]:
    """What `design_from` reads; it goes into config.json."""
    encoder, align, shared = design.encoder, design.align, design.shared
    return {
        "objective": {**objective_record(design.objective)},
        "encoder": {"kind": "mlp", "width": encoder.width} if isinstance(encoder, MLP) else {"kind": "linear"},
        "align": {"kind": "none"} if align is None else {"kind": "procrustes", "tokens": align.tokens},
        "shared": {"features": 0} if shared is None else {"features": shared.features, "ratio": shared.ratio},
        "partition": dict(design.partition),
    }


def _encoder_from(record: Mapping[str, object]) -> Encoder:
    match dict(record):
        case {"kind": "linear"}:
            return Linear()
        case {"kind": "mlp", "width": int(width)}:
            return MLP(width)
        case unknown:
            raise ValueError(f"encoder {unknown} is unknown; its kind is 'linear' or 'mlp'")


def _align_from(record: Mapping[str, object]) -> Procrustes | None:
    match dict(record):
        case {"kind": "none"}:
            return None
        case {"kind": "procrustes", "tokens": int(tokens)}:
            return Procrustes(tokens)
        case unknown:
            raise ValueError(f"align {unknown} is unknown; its kind is 'none' or 'procrustes'")


def _shared_from(record: Mapping[str, object]) -> Shared | None:
    match dict(record):
        case {"features": 0}:
            return None
        case {"features": int(features), "ratio": float(ratio) | int(ratio)}:
            return Shared(features, float(ratio))
        case unknown:
            raise ValueError(f"shared {unknown} is unknown; it has features and a ratio")
