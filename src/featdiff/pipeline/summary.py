"""`summary.json`: the headline numbers of a run under stable keys, from whatever stages exist."""

from pathlib import Path

from featdiff.pipeline.plan import Plan
from featdiff.runs import Record, read_json


def summary(plan: Plan) -> Record:
    """Accuracy, quality, tails, dynamics, selection and effects; a part whose stage has not been made is empty."""
    selection = _read(plan.run.path("selection", "selection.json"))
    effects = _read(plan.run.path("interventions", "effects.json"))
    return {
        "models": list(plan.models),
        "accuracy": _read(plan.run.path("evaluation", "accuracy.json")),
        "quality": {name: _quality(plan, name) for name in plan.crosscoders if _measured(plan, name)},
        "tails": {name: tails for name in plan.crosscoders if (tails := _tails(plan, name))},
        "dynamics": {name: found for name in plan.tuned if (found := _dynamics(plan, name))},
        "selection": {
            key: selection[key] for key in ("tasks", "per_task", "chosen", "rule", "score") if key in selection
        },
        "effects": effects.get("effects", []),
    }


def _measured(plan: Plan, name: str) -> bool:
    return plan.run.path("crosscoders", name, "quality.json").is_file()


def _quality(plan: Plan, name: str) -> Record:
    held_out = _read(plan.run.path("crosscoders", name, "quality.json"))
    prompts = _read(plan.run.path("quality", f"{name}.json"))
    return held_out | ({"evaluation_prompts": prompts} if prompts else {})


def _tails(plan: Plan, name: str) -> Record:
    return _read(plan.run.path("attribution", f"{name}.json")).get("tails", {})


def _dynamics(plan: Plan, name: str) -> Record:
    found = _read(plan.run.path("dynamics", f"{name}.json"))
    return {key: found[key] for key in ("alignment", "overlap", "noise_floor", "chance", "checkpoints") if key in found}


def _read(path: Path) -> Record:
    return read_json(path) if path.is_file() else {}
