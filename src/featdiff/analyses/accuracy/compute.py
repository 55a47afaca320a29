"""`evaluate`: every model on every task, item by item; who was right on what, and whether that is churn."""

from collections import Counter
from pathlib import Path
from typing import get_args

from featdiff.config.study import BASE, EvaluationSettings, TaskSettings
from featdiff.evaluation.harness import evaluate as evaluate_model
from featdiff.evaluation.outcomes import Outcomes, SetName, save_outcomes
from featdiff.evaluation.repeated_sampling import gain_interval, share_interval
from featdiff.evaluation.results import TaskResult
from featdiff.files import Json, write_json
from featdiff.models.loading import load_model, load_tokenizer
from featdiff.run.evaluation import located_settings, record_file
from featdiff.run.plan import Plan
from featdiff.stats import Interval, difference_interval


def evaluate(plan: Plan, folder: Path) -> None:
    """Write `<model>/<task>.parquet` for each model and task, `outcomes/<task>.parquet`, and `accuracy.json`."""
    settings = located_settings(plan)
    for name in plan.models:
        evaluate_path(plan, folder, name, plan.paths[name], settings)
    accuracy: dict[str, Json] = {}
    for task in settings.tasks:
        results = {name: TaskResult.load(record_file(folder, name, task.name)) for name in plan.models}
        save_outcomes(folder / "outcomes" / f"{task.name}.parquet", results, BASE)
        accuracy[task.name] = _accuracies(plan, results, task)
    write_json(folder / "accuracy.json", accuracy)


def gain_over(before: TaskResult, after: TaskResult, confidence: float) -> Interval:
    """What one model is better than another on the same items."""
    if all(len(one.samples[0].rights) <= 1 for one in (before, after)):
        return difference_interval(before.correct, after.correct, confidence=confidence)
    return gain_interval(before.shares, after.shares, confidence=confidence)


def evaluate_path(plan: Plan, folder: Path, name: str, path: str, settings: EvaluationSettings) -> None:
    """Write `<name>/<task>.parquet` for the model at `path`, of those tasks whose file is not there yet."""
    missing = [task for task in settings.tasks if not record_file(folder, name, task.name).is_file()]
    if not missing:
        return
    lineup = plan.study.lineup
    trust = lineup.trust_remote_code
    model = load_model(path, dtype=lineup.dtype, device=lineup.device, trust_remote_code=trust)
    tokenizer = load_tokenizer(path, trust_remote_code=trust)
    for task in missing:
        one = settings.model_copy(update={"tasks": (task,)})
        try:
            (result,) = evaluate_model(model, tokenizer, one, seed=plan.study.seed)
        except ValueError as error:
            raise ValueError(f"evaluating {name}: {error}") from error
        result.save(record_file(folder, name, task.name))


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
    gain = gain_over(results[BASE], results[name], confidence)
    flips, sets = outcomes.mcnemar(BASE, name), Counter(outcomes.sets(BASE, name))
    return {
        "gain": {"value": gain.value, "interval": [gain.low, gain.high]},
        "flips": {"gained": flips.gained, "lost": flips.lost, "p": flips.p},
        "sets": {one: sets[one] for one in get_args(SetName)},
        "churn": outcomes.churn(BASE, name, alpha=1 - confidence),
    }
