"""Records of an evaluation, one per item and model, and a task's items as token ids; without lm-eval."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float, Int
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

Metric = Literal["acc", "acc_norm", "exact_match"]
Kind = Literal["multiple_choice", "generate_until"]

NO_CHOICE = -1
"""Index that stands for an answer which is none of the choices, because the answer is text."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One item of a task and what one model answered; the defaults are those of a generated answer."""

    sample_id: str
    """The item's number in the task and the beginning of `prompt_hash`: the same for every model."""
    prompt_hash: str
    """SHA-256 of all that the model reads: context and choices."""
    prompt: str
    """The context (of the first choice, where each choice has its own)."""
    choices: tuple[str, ...] = ()
    target: int = NO_CHOICE
    """Index of the right choice."""
    target_text: str
    log_likelihoods: tuple[float, ...] = ()
    """log p(choice | context) in nats, per choice."""
    prediction_acc: int = NO_CHOICE
    """Choice of highest log-likelihood."""
    prediction_acc_norm: int = NO_CHOICE
    """Choice of highest log-likelihood per character, which is lm-eval's acc_norm."""
    prediction_text: str
    """The predicted choice, or the generated answer."""
    correct: bool
    """By the metric of the result that the sample belongs to; of several generated answers, more than half of them."""
    answers: tuple[str, ...] = ()
    """Every generated answer, one per repetition; empty where choices are scored."""
    rights: tuple[bool, ...] = ()
    """Which of these are right."""

    @property
    def share(self) -> float:
        """Share of the repetitions that are right."""
        return sum(self.rights) / len(self.rights) if self.rights else float(self.correct)


_SCALARS = {str: pa.string(), int: pa.int32(), float: pa.float64(), bool: pa.bool_()}
_COLUMNS: dict[object, object] = {**_SCALARS, **{tuple[kind, ...]: pa.list_(_SCALARS[kind]) for kind in _SCALARS}}
_SCHEMA = pa.schema([(field.name, _COLUMNS[field.type]) for field in fields(Sample)])


@dataclass(frozen=True)
class TaskResult:
    """One model on one task: the samples in the task's order. Raises ValueError when there are none."""

    task: str
    kind: Kind
    metric: Metric
    """What `correct` and `prediction` go by."""
    samples: tuple[Sample, ...]
    note: str = ""
    """What a reader must know about the questions; empty where they are the benchmark's."""

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError(f"{self.task} has no items; give data with at least one")

    @property
    def sample_ids(self) -> tuple[str, ...]:
        return tuple(sample.sample_id for sample in self.samples)

    @property
    def correct(self) -> Bool[Tensor, " samples"]:
        return torch.tensor([sample.correct for sample in self.samples])

    @property
    def prediction(self) -> Int[Tensor, " samples"]:
        """Predicted choices by `metric`; -1 where the answer is generated."""
        return self.prediction_by(self.metric)

    @property
    def target(self) -> Int[Tensor, " samples"]:
        return torch.tensor([sample.target for sample in self.samples])

    @property
    def accuracy(self) -> float:
        """Share of correct samples, by `metric`; with repetitions, of correct answers."""
        return sum(sample.share for sample in self.samples) / len(self.samples)

    @property
    def shares(self) -> Float[Tensor, " samples"]:
        """Per sample, the share of its repetitions that are right: 0 or 1 where there is one."""
        return torch.tensor([sample.share for sample in self.samples])

    @property
    def histogram(self) -> tuple[int, ...]:
        """How often each position was predicted, by `metric`; empty where answers are generated."""
        counts = Counter(self.prediction.tolist())
        return tuple(counts[place] for place in range(max(len(sample.choices) for sample in self.samples)))

    @property
    def constant_baseline(self) -> float:
        """Accuracy of the best constant answer: always the position (or text) that is most often right.

        Where every right choice has one position (lm-eval's SciQ puts it last), positions say nothing about a model
        that never sees them; then it is chance.
        """
        own_choices = len({sample.choices for sample in self.samples}) > 1  # not the same letters for all
        if len({sample.target for sample in self.samples}) == 1 and own_choices:
            return sum(1 / len(sample.choices) for sample in self.samples) / len(self.samples)
        answers = Counter((sample.target, sample.target_text if not sample.choices else "") for sample in self.samples)
        return max(answers.values()) / len(self.samples)

    def accuracy_by(self, metric: Metric) -> float:
        """Share of correct samples had `metric` been chosen.

        Raises ValueError for exact_match of choices, or acc of generated answers.
        """
        if (metric == "exact_match") != (self.kind == "generate_until"):
            raise ValueError(
                f"{self.task} is a {self.kind} task, which has no {metric}; it was scored by {self.metric}"
            )
        if self.kind == "generate_until":
            return self.accuracy
        return float((self.prediction_by(metric) == self.target).double().mean())

    def prediction_by(self, metric: Metric) -> Int[Tensor, " samples"]:
        """Predicted choices by `metric`; -1 where the answer is generated."""
        column = "prediction_acc_norm" if metric == "acc_norm" else "prediction_acc"
        return torch.tensor([getattr(sample, column) for sample in self.samples])

    def save(self, path: Path) -> None:
        """Write one parquet file, a row per sample; the file is complete or absent."""
        table = pa.Table.from_pylist([asdict(sample) for sample in self.samples], schema=_SCHEMA)
        about = {"task": self.task, "kind": self.kind, "metric": self.metric, "note": self.note}
        write_table(path, table.replace_schema_metadata(about))

    @staticmethod
    def load(path: Path) -> "TaskResult":
        """Read what `save` wrote. Raises ValueError when the file is absent, damaged, or of another kind."""
        if not path.is_file():
            raise ValueError(f"no evaluation lies at {path}; evaluate the model first")
        again = "delete it and evaluate the model again"
        try:
            table = pq.read_table(path)
            about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            return TypeAdapter(TaskResult).validate_python({**about, "samples": table.to_pylist()})
        except ValidationError:
            raise ValueError(f"{path} holds no records of an evaluation; {again}") from None
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0]}); {again}") from error


@dataclass(frozen=True, eq=False)
class Requests:
    """Items of a multiple-choice task as token ids, as lm-eval has a model score them.

    A request is one choice of one sample: how likely is `continuation_ids[r]` after `context_ids[r]`. Requests of a
    sample follow one another in the order of its choices.
    """

    task: str
    sample_ids: tuple[str, ...]
    choice_counts: Int[Tensor, " samples"]
    target: Int[Tensor, " samples"]
    context_ids: list[list[int]]
    continuation_ids: list[list[int]]
    choice_characters: Float[Tensor, " requests"]
    """Length of each choice in characters, by which lm-eval's acc_norm divides."""

    @cached_property
    def sample_of(self) -> Int[Tensor, " requests"]:
        return torch.arange(len(self.choice_counts)).repeat_interleave(self.choice_counts)

    @cached_property
    def choice_of(self) -> Int[Tensor, " requests"]:
        return torch.cat([torch.arange(count) for count in self.choice_counts.tolist()])

    def select(self, samples: Int[Tensor, " chosen"]) -> "Requests":
        """The requests of the chosen samples alone, in the order of `samples`."""
        chosen = samples.tolist()
        rows = [int(row) for sample in chosen for row in (self.sample_of == sample).nonzero()[:, 0]]
        return Requests(
            task=self.task,
            sample_ids=tuple(self.sample_ids[sample] for sample in chosen),
            choice_counts=self.choice_counts[samples],
            target=self.target[samples],
            context_ids=[self.context_ids[row] for row in rows],
            continuation_ids=[self.continuation_ids[row] for row in rows],
            choice_characters=self.choice_characters[rows],
        )

    @staticmethod
    def together(parts: Sequence["Requests"]) -> "Requests":
        """The items of several tasks one after another, as one list of requests."""
        return Requests(
            task=", ".join(part.task for part in parts),
            sample_ids=tuple(f"{part.task} {sample}" for part in parts for sample in part.sample_ids),
            choice_counts=torch.cat([part.choice_counts for part in parts]),
            target=torch.cat([part.target for part in parts]),
            context_ids=[ids for part in parts for ids in part.context_ids],
            continuation_ids=[ids for part in parts for ids in part.continuation_ids],
            choice_characters=torch.cat([part.choice_characters for part in parts]),
        )


def write_table(path: Path, table: pa.Table) -> None:  # pyright: ignore[reportUnknownParameterType]: untyped
    """Write a parquet file, complete or not at all."""
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, partial)
    partial.replace(path)
