"""`evaluate`: every model on every task, item by item; who was right on what, and whether that is churn."""

from collections import Counter
from pathlib import Path
from typing import get_args

from featdiff.config.study import BASE, TaskSettings
from featdiff.evaluation.outcomes import Outcomes, SetName, save_outcomes
from featdiff.evaluation.repeated_sampling import gain_over, share_interval
from featdiff.evaluation.results import TaskResult
from featdiff.files import Json, write_json
from featdiff.run.evaluation import evaluate_missing, located_settings, record_file
from featdiff.run.plan import Plan


def evaluate(plan: Plan, folder: Path) -> None:
    """Write `<model>/<task>.parquet` for each model and task, `outcomes/<task>.parquet`, and `accuracy.json`."""
    settings = located_settings(plan)
    for name in plan.models:
        evaluate_missing(plan, folder, name, plan.paths[name], settings)
    accuracy: dict[str, Json] = {}
    for task in settings.tasks:
        results = {name: TaskResult.load(record_file(folder, name, task.name)) for name in plan.models}
        save_outcomes(folder / "outcomes" / f"{task.name}.parquet", results, BASE)
        accuracy[task.name] = _accuracies(plan, results, task)
    write_json(folder / "accuracy.json", accuracy)


def _accuracies(plan: Plan, results: dict[str, TaskResult], task: TaskSettings) -> dict[str, Json]:
    outcomes, base = Outcomes.of(results), results[BASE]
    about: dict[str, Json] = {"constant_baseline": base.constant_baseline, "role": task.role, "note": base.note}
    confidence = plan.study.intervention.confidence
    return {
        name: _accuracy(result, confidence) | _beside_base(results, outcomes, name, confidence) | about
        for name, result in results.items()
    }


def _accuracy(result: TaskResult, confidence: float) -> dict[str, Json]:
    """Accuracy with Wilson's interval, by both metrics where choices are scored, and how often each was predicted."""
    share = share_interval(result.shares, confidence=confidence)
    record: dict[str, Json] = {"value": share.value, "n": len(result.samples), "interval": [share.low, share.high]}
    if result.kind == "multiple_choice":
        by = {metric: result.accuracy_by(metric) for metric in ("acc", "acc_norm")}
        return record | by | {"histogram": list(result.histogram)}
    return record | {"repeats": len(result.samples[0].rights)}


def _beside_base(results: dict[str, TaskResult], outcomes: Outcomes, name: str, confidence: float) -> dict[str, Json]:
    """Of a tuned model: the gain over the base on the same items, the items that flipped, and whether that is churn."""
    if name == BASE:
        return {}
    gain = gain_over(results[BASE], results[name], confidence=confidence)
    flips, sets = outcomes.mcnemar(BASE, name), Counter(outcomes.sets(BASE, name))
    return {
        "gain": {"value": gain.value, "interval": [gain.low, gain.high]},
        "flips": {"gained": flips.gained, "lost": flips.lost, "p": flips.p},
        "sets": {one: sets[one] for one in get_args(SetName)},
        "churn": outcomes.churn(BASE, name, alpha=1 - confidence),
    }
