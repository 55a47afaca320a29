"""What of a study exists, from what it was made, and what is stale."""

from pathlib import Path

from featdiff.config.study_file import read_study
from featdiff.run.folder import StagePlan
from featdiff.run.plan import Plan
from featdiff.workflow.registry import stages_of


def show(path: Path, as_json: bool = False) -> str:
    """The state of a study (a TOML file) or a run (its folder), as text; with `as_json` its `summary.json`."""
    plan = Plan(_study_of(path))
    if as_json:
        summary = plan.run.path("summary.json")
        if not summary.is_file():
            raise ValueError(f"{plan.run.folder} holds no summary.json yet; make it with: featdiff run {path}")
        return summary.read_text(encoding="utf-8").rstrip()
    stages = stages_of(plan)
    lines = [f"study {plan.study.name} -> {plan.run.folder}", "", *_models(plan), "", *_crosscoders(plan), ""]
    return "\n".join(lines + [_line(plan, stage) for stage in stages])


def _study_of(path: Path):
    if not path.is_dir():
        return read_study(path)
    if not (path / "study.json").is_file():
        raise ValueError(f"{path} holds no study.json, so it is no run; give a study file or the folder of a run")
    study = read_study(path / "study.json")
    return study.model_copy(update={"runs": str(path.resolve().parent), "name": path.resolve().name})


def _models(plan: Plan) -> list[str]:
    return [f"  model {name:<8} {plan.paths[name]}" for name in plan.models]


def _crosscoders(plan: Plan) -> list[str]:
    return [
        f"  crosscoder {name}: {', '.join(one.models)}; {one.features} features, {one.sparsity.kind}"
        for name, one in plan.crosscoders.items()
    ]


def _line(plan: Plan, stage: StagePlan) -> str:
    state = plan.run.state(stage)
    builds_on = [key.removeprefix("stage ") for key in stage.made_from if key.startswith("stage ")]
    source = f"from {', '.join(builds_on)}" if builds_on else "from the study's own inputs"
    if state == "missing" and plan.run.path(stage.folder + ".partial").is_dir():
        state = "begun"
    why = f"; {_reason(plan, stage)}" if state == "stale" else ""
    return f"  {state:<8} {stage.name:<11} {stage.folder + '/':<16} {source}{why}"


def _reason(plan: Plan, stage: StagePlan) -> str:
    """Why a stage is stale: another method, and whatever else has changed."""
    changed, made = plan.run.changed(stage), plan.run.made_from(stage)
    if "method" not in changed:
        return f"changed: {', '.join(changed)}"
    others = [name for name in changed if name != "method"]
    found = f"made by method {made.get('method', 'unknown')}, method {stage.made_from['method']} wanted"
    return found + (f"; changed: {', '.join(others)}" if others else "")
