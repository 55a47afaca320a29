"""Outcomes of a study as a table, and two studies compared on the questions that both asked.

A question is known by the hash of all that the model reads, so studies with other limits or other orders still meet.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featdiff.evaluation.outcomes import Outcomes
from featdiff.evaluation.results import TaskResult
from featdiff.stats import exact_mcnemar

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


def save_outcomes(path: Path, results: dict[str, TaskResult], base: str) -> None:
    """Write one parquet file on one task: a row per model and item, with the set that the item is in beside `base`."""
    outcomes = Outcomes.of(results)
    rows = []
    for model, result in results.items():
        sets = outcomes.sets(base, model) if model != base else [""] * len(result.samples)
        predictions = result.prediction.tolist()
        for sample, prediction, name in zip(result.samples, predictions, sets, strict=True):
            row = (result.task, model, sample.sample_id, sample.prompt_hash, sample.correct, sample.share)
            rows.append(dict(zip(_SCHEMA.names, (*row, prediction, name), strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), partial)
    os.replace(partial, path)


@dataclass(frozen=True)
class Comparison:
    """One model of that name in two studies, on the questions of one task that both asked it."""

    task: str
    model: str
    items: int
    """Questions in both studies; a question asked twice counts twice."""
    only_a: int
    only_b: int
    accuracy_a: float
    """Share of right answers on the common questions."""
    accuracy_b: float
    agreement: float
    """Share of the common questions that are right in both studies or wrong in both."""
    gained: int
    """Wrong in the first study, right in the second."""
    lost: int
    p: float
    """Exact McNemar: that gains and losses are equally likely."""
    critical_a: int
    """Common questions in the first study's critical set of this model; 0 for the base."""
    critical_b: int
    critical_both: int

    @property
    def critical_overlap(self) -> float:
        """Jaccard overlap of the two critical sets; nan where both are empty."""
        union = self.critical_a + self.critical_b - self.critical_both
        return self.critical_both / union if union else float("nan")


def compare_outcomes(run_a: Path, run_b: Path) -> list[Comparison]:
    """Two runs, task by task and model by model, in the order of the first.

    Raises ValueError when a run has no outcomes, or when the runs share no question.
    """
    first, second = _read(run_a), _read(run_b)
    found = [
        _compared(task, model, first[task, model], second[task, model])
        for task, model in first
        if (task, model) in second
    ]
    if not any(comparison.items for comparison in found):
        raise ValueError(f"{run_a} and {run_b} asked no model of one name the same question; compare runs on one task")
    return found


_Rows = dict[tuple[str, int], dict]
"""By the prompt's hash, and how often it came before."""


def _read(run: Path) -> dict[tuple[str, str], _Rows]:
    files = sorted((Path(run) / "evaluation" / "outcomes").glob("*.parquet"))
    if not files:
        raise ValueError(f"no outcomes lie in {Path(run) / 'evaluation' / 'outcomes'}; evaluate the study first")
    found: dict[tuple[str, str], _Rows] = {}
    for file in files:
        table = pq.read_table(file)
        if not table.schema.equals(_SCHEMA):
            raise ValueError(f"{file} holds no outcomes; delete it and evaluate the study again")
        for row in table.to_pylist():
            rows = found.setdefault((row["task"], row["model"]), {})
            number = 0
            while (row["prompt_hash"], number) in rows:
                number += 1
            rows[row["prompt_hash"], number] = row
    return found


def _compared(task: str, model: str, first: _Rows, second: _Rows) -> Comparison:
    common = [key for key in first if key in second]
    pairs = [(first[key]["correct"], second[key]["correct"]) for key in common]
    flips = Counter(pairs)
    gained, lost = flips[False, True], flips[True, False]
    critical = [(first[key]["set"] == "critical", second[key]["set"] == "critical") for key in common]
    return Comparison(
        task=task,
        model=model,
        items=len(common),
        only_a=len(first) - len(common),
        only_b=len(second) - len(common),
        accuracy_a=_mean([first[key]["share"] for key in common]),
        accuracy_b=_mean([second[key]["share"] for key in common]),
        agreement=_mean([float(one == other) for one, other in pairs]),
        gained=gained,
        lost=lost,
        p=exact_mcnemar(gained, lost),
        critical_a=sum(one for one, _ in critical),
        critical_b=sum(other for _, other in critical),
        critical_both=sum(one and other for one, other in critical),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
