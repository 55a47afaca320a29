"""Outcomes of several models on the items of one task, and the sets of items that they define (P12).

critical    base wrong, tuned right     what post-training gained
mirror      base right, tuned wrong     what it lost: as large, if the gain is only churn
both right, both wrong                  the rest
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from featdiff.evaluation.results import TaskResult, write_table
from featdiff.stats import exact_mcnemar

SetName = Literal["critical", "mirror", "both right", "both wrong"]

_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("model", pa.string()),
        ("sample_id", pa.string()),
        ("prompt_hash", pa.string()),
        ("correct", pa.bool_()),
        ("share", pa.float64()),  # of repetitions that are right
        ("prediction", pa.int32()),  # -1 where the answer is generated
        ("set", pa.string()),  # critical, mirror, both right or both wrong; empty for the base
    ]
)


@dataclass(frozen=True)
class McNemar:
    """Items on which two models differ, and the exact two-sided p that gains and losses are equally likely."""

    gained: int
    """Base wrong, tuned right (n01)."""
    lost: int
    """Base right, tuned wrong (n10)."""
    p: float


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Answers of several models to the same items."""

    task: str
    models: tuple[str, ...]
    sample_ids: tuple[str, ...]
    correct: Bool[Tensor, "models samples"]
    prediction: Int[Tensor, "models samples"]
    """Predicted choice; -1 where the answer is generated text."""

    def __post_init__(self) -> None:
        assert self.correct.shape == (len(self.models), len(self.sample_ids)), (
            "one row per model, one column per sample"
        )

    @staticmethod
    def of(results: dict[str, TaskResult]) -> "Outcomes":
        """Join the results of several models on one task.

        Raises ValueError unless all are of the same task and metric, on the same items with the same answers.
        """
        models = tuple(results)
        if not models:
            raise ValueError("found no results to compare; give those of at least one model")
        first = results[models[0]]
        for model in models[1:]:
            _check_same(models[0], first, model, results[model])
        correct = torch.stack([result.correct for result in results.values()])
        prediction = torch.stack([result.prediction for result in results.values()])
        return Outcomes(first.task, models, first.sample_ids, correct, prediction)

    def __getitem__(self, model: str) -> Bool[Tensor, " samples"]:
        """Which samples `model` got right."""
        if model not in self.models:
            raise ValueError(f"{self.task} has outcomes of {', '.join(self.models)}, none of {model}; evaluate it too")
        return self.correct[self.models.index(model)]

    def accuracy(self, model: str) -> float:
        """Share of the samples that `model` got right."""
        return float(self[model].double().mean())

    def critical(self, base: str = "base", tuned: str = "rl") -> Int[Tensor, " critical"]:
        """Samples that `base` gets wrong and `tuned` right (Sec. 3.2), ascending."""
        return (~self[base] & self[tuned]).nonzero()[:, 0]

    def mirror(self, base: str = "base", tuned: str = "rl") -> Int[Tensor, " mirror"]:
        """Samples that `base` gets right and `tuned` wrong, ascending."""
        return (self[base] & ~self[tuned]).nonzero()[:, 0]

    def both_right(self, base: str = "base", tuned: str = "rl") -> Int[Tensor, " right"]:
        """Samples that both get right, ascending."""
        return (self[base] & self[tuned]).nonzero()[:, 0]

    def both_wrong(self, base: str = "base", tuned: str = "rl") -> Int[Tensor, " wrong"]:
        """Samples that both get wrong, ascending."""
        return (~self[base] & ~self[tuned]).nonzero()[:, 0]

    def sets(self, base: str = "base", tuned: str = "rl") -> list[SetName]:
        """The set that each sample is in."""
        names: tuple[SetName, ...] = ("both wrong", "critical", "mirror", "both right")
        return [names[place] for place in (2 * self[base].int() + self[tuned].int()).tolist()]

    def mcnemar(self, base: str = "base", tuned: str = "rl") -> McNemar:
        """Exact test of whether `tuned` gained more items than it lost."""
        gained, lost = len(self.critical(base, tuned)), len(self.mirror(base, tuned))
        return McNemar(gained, lost, exact_mcnemar(gained, lost))

    def churn(self, base: str = "base", tuned: str = "rl", *, alpha: float = 0.05) -> str:
        """One sentence that says whether the critical set may be churn: no more than flips both ways.

        More than churn: the exact McNemar test rejects equal gains and losses at `alpha`, and gains are more.
        """
        test = self.mcnemar(base, tuned)
        if test.gained + test.lost == 0:
            return f"{tuned} and {base} are right on the same items, so there is no set to explain."
        counted = f"gained {test.gained} of {len(self.sample_ids)} items and lost {test.lost} (p = {test.p:.2g})"
        if test.p >= alpha:
            verdict = "its critical items may be churn"
        else:
            gains = test.gained > test.lost
            verdict = "its critical items are more than churn" if gains else "it lost more than it gained"
        return f"{tuned} {counted}: {verdict}."


def save_outcomes(path: Path, results: dict[str, TaskResult], base: str) -> None:
    """Write one parquet file on one task: a row per model and item, with the set of the item against `base`.

    Raises ValueError as `Outcomes.of`.
    """
    outcomes = Outcomes.of(results)
    rows: list[dict[str, object]] = []
    for model, result in results.items():
        sets = outcomes.sets(base, model) if model != base else [""] * len(result.samples)
        for sample, prediction, name in zip(result.samples, result.prediction.tolist(), sets, strict=True):
            row = (result.task, model, sample.sample_id, sample.prompt_hash, sample.correct, sample.share)
            rows.append(dict(zip(_SCHEMA.names, (*row, prediction, name), strict=True)))
    write_table(path, pa.Table.from_pylist(rows, schema=_SCHEMA))


def _check_same(first_model: str, first: TaskResult, model: str, result: TaskResult) -> None:
    if (result.task, result.metric) != (first.task, first.metric):
        raise ValueError(
            f"{first_model} was scored on {first.task} by {first.metric}, {model} on {result.task} by {result.metric}; "
            "compare results on one task by one metric"
        )
    again = f"evaluate both models again on the same data of {first.task}"
    if len(result.samples) != len(first.samples):
        raise ValueError(f"{first_model} has {len(first.samples)} samples, {model} has {len(result.samples)}; {again}")
    for old, new in zip(first.samples, result.samples, strict=True):
        if (old.sample_id, old.prompt_hash) != (new.sample_id, new.prompt_hash):
            raise ValueError(
                f"{first_model} was asked {old.sample_id} where {model} was asked {new.sample_id}; {again}"
            )
        if (old.target, old.target_text) != (new.target, new.target_text):
            raise ValueError(f"{first_model} and {model} have different right answers to {old.sample_id}; {again}")
