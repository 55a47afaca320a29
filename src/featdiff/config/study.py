"""Every setting of a study, in the order of the pipeline. A default that is not the paper's is in docs/decisions.md."""

from typing import Annotated, Literal

from annotated_types import Ge, Lt, MinLen
from pydantic import Field, model_validator

from featdiff.config.base import CONTENT, IMMATERIAL, Count, Name, Positive, Settings, Share
from featdiff.config.crosscoder import BatchTopK, CrosscoderLineup, CrosscoderSettings, JumpReLU, ReLU, Sparsity
from featdiff.config.evaluation import EvaluationSettings, TaskSettings
from featdiff.config.evidence import (
    DriftSettings,
    DynamicsSettings,
    ExampleSettings,
    ScalingSettings,
    StabilitySettings,
)
from featdiff.config.intervention import InterventionSettings, SelectionSettings, WaysSettings
from featdiff.config.posttraining import GRPOSettings, PosttrainSettings, RejectionSettings, SFTSettings
from featdiff.config.sensitivity import SensitivitySettings

__all__ = [
    "BatchTopK",
    "CrosscoderLineup",
    "CrosscoderSettings",
    "EvaluationSettings",
    "GRPOSettings",
    "JumpReLU",
    "PosttrainSettings",
    "ReLU",
    "RejectionSettings",
    "SFTSettings",
    "SelectionSettings",
    "Settings",
    "Sparsity",
    "TaskSettings",
]

BASE = "base"


class LineupSettings(Settings):
    """The named models that are compared; the base comes first."""

    base: Annotated[str, CONTENT] = Field(min_length=1)
    """The base model: a folder in Hugging Face form, or a hub id."""
    tuned: Annotated[dict[Name, str], CONTENT] = Field(default={})
    """Tuned models that exist already, by name, for example sft and rl. Empty when `posttrain` makes them."""
    checkpoints: Annotated[dict[Name, tuple[str, ...]], CONTENT] = Field(default={})
    """Checkpoints in order of training, by the tuned model's name (Sec. 5.2). Filled by `posttrain`."""
    layer: Count | None = None
    """Blocks below the tap: the residual stream after block `layer`, counted from 1. Unset: the middle, floor(L/2)."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the models; residual streams are always captured as float32."""
    device: Annotated[str, IMMATERIAL] = "cpu"
    """Where the models and crosscoders run: cpu, cuda, cuda:1, mps."""
    devices: Annotated[dict[Name, str], IMMATERIAL] = Field(default={})
    """Devices of single models, by name; the others, and all crosscoders, are on `device`."""
    turns: Annotated[bool, IMMATERIAL] = False
    """For when memory is short: models wait on the CPU, each on `device` only while a chunk runs through it."""
    spread: Annotated[bool, IMMATERIAL] = False
    """For when memory is short, under torchrun: each process holds some of the models and runs them over all rows."""
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"] = "auto"
    """How models attend where residual streams are read. auto: flash attention if installed, on CUDA; else SDPA."""
    trust_remote_code: bool = False
    """Run code that a model folder or hub repository brings along. Leave off unless you have read that code."""

    @property
    def placed(self) -> str:
        """Where the models run and in which precision, in words."""
        return f"device = {', '.join(dict.fromkeys((self.device, *self.devices.values())))} in {self.dtype}"

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "LineupSettings":
        if BASE in self.tuned:
            raise ValueError(f"a tuned model cannot be called {BASE!r}; the base is given by lineup.base")
        if unknown := set(self.checkpoints) - set(self.tuned):
            raise ValueError(f"lineup.checkpoints names {sorted(unknown)}, which lineup.tuned does not hold")
        if self.turns and self.devices:
            raise ValueError("lineup.turns runs every model on lineup.device; leave lineup.devices out, or turns")
        if self.turns and self.spread:
            raise ValueError("lineup.turns and lineup.spread are two ways to save memory; choose one")
        return self


class SourceSettings(Settings):
    """One source of text."""

    path: Annotated[str, CONTENT]
    """A text file, a JSONL or parquet file, a folder of those, or a hub data set."""
    share: Share
    """Share of the corpus, in tokens; the shares of all sources sum to 1."""
    kind: Literal["auto", "text", "jsonl", "parquet", "hub"] = "auto"
    """Form of the source; auto goes by the file's ending, and takes anything that is no path for a hub data set."""
    field: str = "text"
    """Column that holds the text."""
    split: str = "train"
    """Split of a hub data set."""
    subset: str | None = None
    """Configuration name of a hub data set."""


class CorpusSettings(Settings):
    """The token stream that every model reads (A.1)."""

    sources: Annotated[tuple[SourceSettings, ...], MinLen(1)]
    """Sources that are merged by share and shuffled jointly (A.1: half reasoning traces, half general text)."""
    tokens: Count = 400_000_000
    """Tokens of the training corpus (A.1: 200M + 200M)."""
    held_out_tokens: Count = 1_000_000
    """Tokens kept apart for quality measurements; no training batch holds them."""
    context: Annotated[int, Ge(8)] = 1024
    """Tokens per packed sequence."""

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> "CorpusSettings":
        total = sum(source.share for source in self.sources)
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the shares of corpus.sources sum to {total:g}; they must sum to 1")
        return self


class ActivationSettings(Settings):
    """Residual streams and what is kept of them."""

    batch_size: Count = 16
    """Packed sequences per forward pass."""
    buffer_mib: Count = 1024
    """Memory of the shuffle buffer, over all models together, in MiB."""
    prefetch: Annotated[Literal["auto", "on", "off"], IMMATERIAL] = "auto"
    """Whether models run while crosscoders train, but never if they take turns. auto: where there is a GPU."""
    cache: Annotated[str | None, IMMATERIAL] = Field(default=None, min_length=1)
    """Folder that keeps the residual streams of the corpus for further studies and sweep points, which then do not run
    the models over it. Costs tokens x models x d_model x 4 bytes of disk (2 in half precision); unset: none is kept."""
    drop_first: bool = True
    """Drop the first position of every document, whose norm dwarfs all others."""
    sink_multiple: Positive = 10.0
    """Drop tokens whose norm exceeds this multiple of the median norm in any model (attention sinks)."""
    scale_tokens: Count = 100_000
    """Kept tokens from which each model's scale is estimated: raw = scale x normalised, mean norm sqrt(d_model)."""


class TrainingSettings(Settings):
    """The optimizer of the crosscoders; all train on one stream (A.1)."""

    batch_size: Count = 1024
    """Tokens per step (A.1)."""
    lr: Positive = 1e-4
    """Learning rate of Adam (A.1)."""
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Adam's decay of the first moment."""
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    """Adam's decay of the second moment."""
    clip: Positive = 1.0
    """Largest gradient norm."""
    decay: Share = 0.2
    """Last share of the steps, over which the learning rate falls linearly to 0."""
    epochs: Count = 1
    """Passes over the corpus; the paper makes one."""
    checkpoint_minutes: Annotated[Positive, IMMATERIAL] = 10.0
    """Minutes between checkpoints from which a killed run goes on."""
    log_every: Annotated[Count, IMMATERIAL] = 100
    """Steps between lines in metrics.jsonl."""
    feature_shards: Annotated[Count, IMMATERIAL] = 1
    """Under torchrun: processes among which the features are divided; groups of so many divide the tokens."""
    accept_poor_fit: Annotated[bool, IMMATERIAL] = False
    """Go on, with a warning, where a crosscoder fits held-out text worse than none, or BatchTopK's L0 is far from k."""


class AttributionSettings(Settings):
    """Who owns a feature (Eq. 4, 8-10)."""

    norm_p: Literal[1, 2] = 1
    """Norm of the decoder vectors in NRN and MAS (Eq. 4: L1)."""
    space: Literal["normalised", "raw"] = "normalised"
    """Whether decoder norms are taken in normalised or in raw units."""
    min_density: Share = 1e-5
    """A feature is alive if it fires on at least this share of the held-out tokens."""
    tails: tuple[Share, ...] = (0.8, 0.9)
    """Scores beyond which a feature counts as specific to a model (Sec. 5.1: 0.8)."""
    scaling: ScalingSettings = ScalingSettings()
    """Which of these are absent from the other models, and which only shrunk there."""


class Study(Settings):
    """One study: what is compared, on what, and how."""

    name: Name
    """Name of the study; its results lie in `runs/<name>`."""
    seed: int = 0
    """Seed of every random choice that has none of its own."""
    runs: str = "runs"
    """Folder that holds the runs."""
    threads: Annotated[int, Ge(0)] = 0
    """CPU threads of torch; 0 leaves torch's own choice."""
    lineup: LineupSettings
    """The models."""
    posttrain: PosttrainSettings | None = None
    """How the tuned models are made; absent when they are given."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Benchmarks."""
    corpus: CorpusSettings
    """Text from which features are learned."""
    activations: ActivationSettings = ActivationSettings()
    """Residual streams."""
    crosscoder: CrosscoderSettings = CrosscoderSettings()
    """Dictionaries."""
    training: TrainingSettings = TrainingSettings()
    """Their training."""
    attribution: AttributionSettings = AttributionSettings()
    """Ownership."""
    stability: StabilitySettings = StabilitySettings()
    """Features over seeds."""
    dynamics: DynamicsSettings = DynamicsSettings()
    """Formation."""
    selection: SelectionSettings = SelectionSettings()
    """Features that may control generalization."""
    intervention: InterventionSettings = InterventionSettings()
    """The causal test."""
    ways: WaysSettings = WaysSettings()
    """Features beside other ways to change the base."""
    sensitivity: SensitivitySettings | None = None
    """What hangs on choices of the dictionary; absent: they are not varied."""
    drift: DriftSettings = DriftSettings()
    """How far the models moved."""
    examples: ExampleSettings = ExampleSettings()
    """Evidence for single features."""
