"""What a crosscoder is made with: how sparse, by which objective, over which features, and through which map.

A class here is what the library takes, what a study's TOML fills, and what config.json of a saved crosscoder holds. Its
maths is in `featdiff.crosscoder`. Choices of one kind are dataclasses, so that `BatchTopK(64)` can be written; `kind`
tells them apart in a file.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from featdiff.config.base import Count, Name, Positive, Settings, Share

CHOICE = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
DECODER_INIT_NORM = 0.08


@dataclass(frozen=True, config=CHOICE)
class ReLU:
    """ReLU with the decoder-norm-weighted L1 penalty (Eq. 3, 7)."""

    kind: Literal["relu"] = Field(default="relu", kw_only=True)
    """ReLU."""
    weight: Annotated[float, Ge(0)] = 2.0
    """beta of Eq. 3 (A.1: 2), for a loss summed over models and d_model and averaged over tokens."""
    warmup: Share = 0.05
    """Share of the steps over which the weight rises linearly from 0."""


@dataclass(frozen=True, config=CHOICE)
class BatchTopK:
    """Keep the k largest contributions per token on average over the batch; free of L1's shrinkage."""

    kind: Literal["batchtopk"] = Field(default="batchtopk", kw_only=True)
    """BatchTopK."""
    k: Count = 64
    """Active features per token, on average."""
    aux_weight: Annotated[float, Ge(0)] = 1 / 32
    """Weight of the auxiliary loss that revives dead features."""
    aux_k: Count | None = None
    """Dead features that reconstruct the residual; unset: half of d_model."""
    dead_after_tokens: Count = 10_000_000
    """A feature that was silent for so many tokens is dead."""


@dataclass(frozen=True, config=CHOICE)
class JumpReLU:
    """A threshold learned for every feature, under a penalty that counts active features (Anthropic, January 2025)."""

    kind: Literal["jumprelu"] = Field(default="jumprelu", kw_only=True)
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


Sparsity = ReLU | BatchTopK | JumpReLU


@dataclass(frozen=True, config=CHOICE)
class MSE:
    """Squared error (Eq. 3, 7)."""

    kind: Literal["mse"] = Field(default="mse", kw_only=True)
    """Squared error."""


@dataclass(frozen=True, config=CHOICE)
class DeltaMSE:
    """Squared error and, times `weight`, the products of the errors of two models: it favours their difference."""

    kind: Literal["mse_delta"] = Field(default="mse_delta", kw_only=True)
    """Squared error with a say for differences between models."""
    weight: Annotated[float, Ge(-1), Le(0)] = -0.5
    """0: squared error; -1: errors that all models share cost nothing."""


@dataclass(frozen=True, config=CHOICE)
class Cosine:
    """The angle between reconstruction and activation, and the ratio of their norms, model by model."""

    kind: Literal["cosine"] = Field(default="cosine", kw_only=True)
    """Angle and norm."""


Objective = MSE | DeltaMSE | Cosine


@dataclass(frozen=True, config=CHOICE)
class Linear:
    """Pre-activations are linear in the activations (Eq. 1, 5)."""

    kind: Literal["linear"] = Field(default="linear", kw_only=True)
    """Linear."""


@dataclass(frozen=True, config=CHOICE)
class MLP:
    """A hidden layer whose output joins that of the linear encoder; it trains by dense autograd in one process, many
    times slower.

    pre = sum_m W_enc[m] a[m] + W_hidden relu(sum_m W_in[m] a[m] + b_hidden) + b_enc. W_hidden starts at 0, so that
    training begins at the linear encoder; what differs in the end, the hidden layer did.
    """

    kind: Literal["mlp"] = Field(default="mlp", kw_only=True)
    """One hidden layer."""
    width: Count = 1024
    """Hidden units."""


Encoder = Linear | MLP


@dataclass(frozen=True, config=CHOICE)
class NoAlignment:
    """Models are compared in the bases that they have."""

    kind: Literal["none"] = Field(default="none", kw_only=True)
    """None."""


@dataclass(frozen=True, config=CHOICE)
class Procrustes:
    """Training sees every tuned model turned onto the base by the best orthogonal map; the result is turned back."""

    kind: Literal["procrustes"] = Field(default="procrustes", kw_only=True)
    """An orthogonal map."""
    tokens: Annotated[int, Ge(2)] = 100_000
    """Tokens from which the maps are estimated; many more than d_model are needed."""


Alignment = NoAlignment | Procrustes


@dataclass(frozen=True, config=CHOICE)
class Shared:
    """Designated shared features: one decoder row for all models, at a reduced penalty (Anthropic, February 2025)."""

    features: Annotated[int, Ge(0)] = 0
    """How many; 0: none."""
    ratio: Annotated[float, Gt(0), Le(1)] = 0.15
    """Their penalty over that of the others."""


Partition = dict[str, Annotated[float, Gt(0), Lt(1)]]


class Design(Settings):
    """What a crosscoder is trained for, and which of its features are set apart beforehand; the defaults are the
    paper's."""

    objective: Objective = Field(default=MSE(), discriminator="kind")
    """Squared error (the paper), the same with a say for differences between models, or angle and norm."""
    encoder: Encoder = Field(default=Linear(), discriminator="kind")
    """A linear encoder (the paper), or one to which a hidden layer is added."""
    align: Alignment = Field(default=NoAlignment(), discriminator="kind")
    """Whether the tuned models are first turned onto the base."""
    shared: Shared = Shared()
    """Features whose decoder is the same in all models, at a reduced penalty; with relu and jumprelu."""
    partition: Partition = Field(default={})
    """Shares of the dictionary that only some models have, such as { rl = 0.05, "base+sft" = 0.05 }; a key applies to
    those crosscoders that read its models and others besides."""


class CrosscoderPlan(Design):
    """One crosscoder with every choice made."""

    models: tuple[str, ...]
    """Models that it reads, base first."""
    features: Count
    """Dictionary size."""
    sparsity: Sparsity = Field(discriminator="kind")
    """ReLU with L1, BatchTopK or JumpReLU."""
    seed: int = 0
    """Seed of the weights at the start."""

    @property
    def design(self) -> Design:
        """Its choices apart from models, size, sparsity and seed."""
        return Design.model_validate({name: getattr(self, name) for name in Design.model_fields})


class CrosscoderConfig(CrosscoderPlan):
    """config.json of a saved crosscoder."""

    d_model: Count
    """Width of the activations of every model."""
    gauge: Literal["none", "sum_norm"] = "none"
    """sum_norm: every feature has sum_m |W_dec[k, m]|_2 = 1."""
    provenance: dict[str, object] = Field(default={})
    """What it was trained from."""


class CrosscoderLineup(Settings):
    """One crosscoder of the study: which models it aligns, and what differs from `crosscoder`."""

    models: Annotated[tuple[str, ...], MinLen(2)]
    """Models by name, base first. Checkpoints are called sft-1, sft-2, ..."""
    features: Count | None = None
    """Dictionary size; unset: as in `crosscoder`."""
    sparsity: Sparsity | None = Field(default=None, discriminator="kind")
    """Sparsity; unset: as in `crosscoder`."""
    objective: Objective | None = Field(default=None, discriminator="kind")
    """Objective; unset: as in `crosscoder`."""
    encoder: Encoder | None = Field(default=None, discriminator="kind")
    """Encoder; unset: as in `crosscoder`."""
    align: Alignment | None = Field(default=None, discriminator="kind")
    """Alignment; unset: as in `crosscoder`."""
    shared: Shared | None = None
    """Shared features; unset: as in `crosscoder`."""
    partition: Partition | None = None
    """Dedicated features, of models of this crosscoder; unset: as in `crosscoder`."""
    seed: int | None = None
    """Seed; unset: the study's."""
    seeds: tuple[int, ...] = ()
    """Seeds of several crosscoders that differ in nothing else; empty: as in `crosscoder`."""


class CrosscoderSettings(Design):
    """The shared dictionary (Eq. 1-3, 5-7)."""

    features: Count = 32768
    """Dictionary size (A.1)."""
    sparsity: Sparsity = Field(default=ReLU(), discriminator="kind")
    """ReLU with L1 (the paper), BatchTopK or JumpReLU."""
    seeds: tuple[int, ...] = ()
    """Every crosscoder is trained from each of these seeds, all on one stream; the first supplies the features, the
    others say how stable they are. Empty: once, from the study's seed."""
    decoder_init_norm: Positive = DECODER_INIT_NORM
    """Norm of every decoder row at the start; the encoder starts as its transpose."""
    lineups: dict[Name, CrosscoderLineup] = Field(default={})
    """Crosscoders by name. Empty: all models jointly; the base with each tuned model; the base with all checkpoints of
    one, and with each of them, as far as `dynamics.alignments` needs it."""

    def plan(self, lineup: CrosscoderLineup, seed: int) -> CrosscoderPlan:
        """A crosscoder of a lineup. What the lineup leaves open is as here; of the partition, what concerns its
        models."""
        partition = {key: share for key, share in self.partition.items() if set(key.split("+")) < set(lineup.models)}
        common = {name: value for name, value in self if name in CrosscoderPlan.model_fields}
        own = {name: value for name, value in lineup if name in CrosscoderPlan.model_fields and value is not None}
        return CrosscoderPlan.model_validate({**common, "partition": partition, **own, "seed": seed})


def dedicated(features: int, partition: Mapping[str, float]) -> dict[str, int]:
    """Features of each subset of models in a dictionary of so many, in the order of the partition."""
    return {key: round(share * features) for key, share in partition.items()}


def check_blocks(models: tuple[str, ...], features: int, sparsity: Sparsity, design: Design) -> None:
    """ValueError where a crosscoder cannot have the shared and dedicated features of its design."""
    shared, partition = design.shared.features, design.partition
    if shared and isinstance(sparsity, BatchTopK):
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
