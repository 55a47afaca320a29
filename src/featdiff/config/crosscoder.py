"""Settings of the dictionaries: how sparse, by which objective, over which features, and through which map."""

from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import Field

from featdiff.config.base import Count, Name, Positive, Settings, Share


class ReLUSettings(Settings):
    """ReLU with the decoder-norm-weighted L1 penalty (Eq. 3, 7)."""

    kind: Literal["relu"] = "relu"
    """ReLU."""
    weight: Annotated[float, Ge(0)] = 2.0
    """beta of Eq. 3 (A.1: 2), for a loss summed over models and d_model and averaged over tokens."""
    warmup: Share = 0.05
    """Share of the steps over which the weight rises linearly from 0."""


class BatchTopKSettings(Settings):
    """Keep the k largest contributions per token on average over the batch; free of L1's shrinkage."""

    kind: Literal["batchtopk"] = "batchtopk"
    """BatchTopK."""
    k: Count = 64
    """Active features per token, on average."""
    aux_weight: Annotated[float, Ge(0)] = 1 / 32
    """Weight of the auxiliary loss that revives dead features."""
    aux_k: Count | None = None
    """Dead features that reconstruct the residual; unset: half of d_model."""
    dead_after_tokens: Count = 10_000_000
    """A feature that was silent for so many tokens is dead."""


class JumpReLUSettings(Settings):
    """A threshold learned for every feature, under a penalty that counts active features (Anthropic, January 2025)."""

    kind: Literal["jumprelu"] = "jumprelu"
    """JumpReLU."""
    weight: Annotated[float, Ge(0)] = 0.5
    """Cost of a strong feature, in the units of the loss. Weak ones stay off as under L1 with beta = weight * c."""
    c: Positive = 4.0
    """Steepness of the tanh penalty: a contribution of 2 / c costs 96 % of `weight`."""
    warmup: Share = 1.0
    """Share of the steps over which the weight rises linearly from 0."""
    pre_weight: Annotated[float, Ge(0)] = 3e-6
    """Weight of the distance between a pre-activation and the threshold above it; it pulls dead features back."""
    bandwidth: Positive = 2.0
    """Width of the window around the threshold, in units of the pre-activation, from which the threshold learns."""
    threshold: Positive = 0.1
    """Threshold of every feature at the start."""


SparsitySettings = ReLUSettings | BatchTopKSettings | JumpReLUSettings


class MSESettings(Settings):
    """Squared error (Eq. 3, 7)."""

    kind: Literal["mse"] = "mse"
    """Squared error."""


class DeltaMSESettings(Settings):
    """Squared error and, times `weight`, the products of the errors of two models: it favours their difference."""

    kind: Literal["mse_delta"] = "mse_delta"
    """Squared error with a say for differences between models."""
    weight: Annotated[float, Ge(-1), Le(0)] = -0.5
    """0: squared error; -1: errors that all models share cost nothing."""


class CosineSettings(Settings):
    """The angle between reconstruction and activation, and the ratio of their norms, model by model."""

    kind: Literal["cosine"] = "cosine"
    """Angle and norm."""


ObjectiveSettings = MSESettings | DeltaMSESettings | CosineSettings


class LinearSettings(Settings):
    """Pre-activations are linear in the activations (Eq. 1, 5)."""

    kind: Literal["linear"] = "linear"
    """Linear."""


class MLPSettings(Settings):
    """A hidden layer beside the linear encoder; it trains by dense autograd in one process, many times slower."""

    kind: Literal["mlp"] = "mlp"
    """One hidden layer."""
    width: Count = 1024
    """Hidden units."""


EncoderSettings = LinearSettings | MLPSettings


class NoAlignmentSettings(Settings):
    """Models are compared in the bases that they have."""

    kind: Literal["none"] = "none"
    """None."""


class ProcrustesSettings(Settings):
    """Training sees every tuned model turned onto the base by the best orthogonal map; the result is turned back."""

    kind: Literal["procrustes"] = "procrustes"
    """An orthogonal map."""
    tokens: Count = 100_000
    """Tokens from which the maps are estimated; many more than d_model are needed."""


AlignmentSettings = NoAlignmentSettings | ProcrustesSettings


class SharedSettings(Settings):
    """Designated shared features: one decoder row for all models, at a reduced penalty (Anthropic, February 2025)."""

    features: Annotated[int, Ge(0)] = 0
    """How many; 0: none."""
    ratio: Annotated[float, Gt(0), Le(1)] = 0.15
    """Their penalty over that of the others."""


Partition = dict[str, Annotated[float, Gt(0), Lt(1)]]


class CrosscoderLineup(Settings):
    """One crosscoder of the study: which models it aligns, and what differs from `crosscoder`."""

    models: Annotated[tuple[str, ...], MinLen(2)]
    """Models by name, base first. Checkpoints are called sft-1, sft-2, ..."""
    features: Count | None = None
    """Dictionary size; unset: as in `crosscoder`."""
    sparsity: SparsitySettings | None = Field(default=None, discriminator="kind")
    """Sparsity; unset: as in `crosscoder`."""
    objective: ObjectiveSettings | None = Field(default=None, discriminator="kind")
    """Objective; unset: as in `crosscoder`."""
    encoder: EncoderSettings | None = Field(default=None, discriminator="kind")
    """Encoder; unset: as in `crosscoder`."""
    align: AlignmentSettings | None = Field(default=None, discriminator="kind")
    """Alignment; unset: as in `crosscoder`."""
    shared: SharedSettings | None = None
    """Shared features; unset: as in `crosscoder`."""
    partition: Partition | None = None
    """Dedicated features, of models of this crosscoder; unset: as in `crosscoder`."""
    seed: int | None = None
    """Seed; unset: the study's."""
    seeds: tuple[int, ...] = ()
    """Seeds of several crosscoders that differ in nothing else; empty: as in `crosscoder`."""


class CrosscoderSettings(Settings):
    """The shared dictionary (Eq. 1-3, 5-7)."""

    features: Count = 32768
    """Dictionary size (A.1)."""
    sparsity: SparsitySettings = Field(default=ReLUSettings(), discriminator="kind")
    """ReLU with L1 (the paper), BatchTopK or JumpReLU."""
    objective: ObjectiveSettings = Field(default=MSESettings(), discriminator="kind")
    """Squared error (the paper), the same with a say for differences between models, or angle and norm."""
    encoder: EncoderSettings = Field(default=LinearSettings(), discriminator="kind")
    """A linear encoder (the paper), or one with a hidden layer beside it."""
    align: AlignmentSettings = Field(default=NoAlignmentSettings(), discriminator="kind")
    """Whether the tuned models are first turned onto the base."""
    shared: SharedSettings = SharedSettings()
    """Features whose decoder is the same in all models, at a reduced penalty; with relu and jumprelu."""
    partition: Partition = Field(default={})
    """Shares of the dictionary that only some models have, such as { rl = 0.05, "base+sft" = 0.05 }; a key applies to
    those crosscoders that read its models and others besides."""
    seeds: tuple[int, ...] = ()
    """Every crosscoder is trained from each of these seeds, all on one stream; the first supplies the features, the
    others say how stable they are. Empty: once, from the study's seed."""
    decoder_init_norm: Positive = 0.08
    """Norm of every decoder row at the start; the encoder starts as its transpose."""
    lineups: dict[Name, CrosscoderLineup] = Field(default={})
    """Crosscoders by name. Empty: all models jointly; the base with each tuned model; the base with all checkpoints of
    one, and with each of them, as far as `dynamics.alignments` needs it."""


def dedicated(features: int, partition: Mapping[str, float]) -> dict[str, int]:
    """Features of each subset of models in a dictionary of so many, in the order of the partition."""
    return {key: round(share * features) for key, share in partition.items()}


def check_blocks(
    models: tuple[str, ...], features: int, sparsity: str, shared: int, partition: Mapping[str, float]
) -> None:
    """ValueError where a crosscoder cannot have so many shared features and this partition; `sparsity` is a kind."""
    if shared and sparsity == "batchtopk":
        raise ValueError(
            f"{shared} shared features want a reduced penalty, and BatchTopK has no penalty; "
            "use relu or jumprelu, or leave crosscoder.shared out"
        )
    for key, count in dedicated(features, partition).items():
        owners = key.split("+")
        if len(set(owners)) != len(owners) or not set(owners) < set(models):
            raise ValueError(f"the partition names {key!r}; join some, but not all, of {', '.join(models)} by +")
        if not count:
            raise ValueError(f"the partition gives {key!r} no feature of {features}; raise its share or leave it out")
    owned = [frozenset(key.split("+")) for key in partition]
    if len(set(owned)) != len(owned):
        raise ValueError(f"the partition names some models twice: {', '.join(partition)}; give them one share")
    wanted = shared + sum(dedicated(features, partition).values())
    if wanted > features:
        raise ValueError(f"{wanted} shared and dedicated features do not fit a dictionary of {features}; lower them")
