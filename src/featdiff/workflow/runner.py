"""Make one stage, or whatever of a study is missing or stale."""

import fcntl
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from featdiff import torchrun
from featdiff.config.study import Study
from featdiff.files import write_json
from featdiff.run.folder import StagePlan
from featdiff.run.plan import Plan
from featdiff.workflow.preflight import check_inputs
from featdiff.workflow.registry import definition, stage_of, stages_of, summary


def run_study(study: Study) -> Path:
    """Do whatever is missing or stale, in order; the path of the report."""
    plan = Plan(study)
    check_inputs(plan)
    with _alone(plan):
        print(f"models {', '.join(plan.models)}: {study.lineup.placed}", file=sys.stderr)
        stages = stages_of(plan)
        for number, stage in enumerate(stages, 1):
            _make(plan, stage, f"[{number}/{len(stages)}] ")
    return plan.run.path("report.html")


def run_verb(study: Study, verb: str) -> Path:
    """Make one stage; what it builds on must exist. The path of its folder."""
    plan = Plan(study)
    if torchrun.rank():
        return _assist(plan, stage_of(plan, verb))
    check_inputs(plan)
    stages = stages_of(plan)
    wanted = stage_of(plan, verb)
    with _alone(plan):
        for stage in stages[: stages.index(wanted)]:
            if f"stage {stage.name}" in wanted.made_from:
                _demand(plan, stage, verb)
        _make(plan, wanted, "")
    return plan.run.path("report.html" if verb == "report" else wanted.folder)


def _assist(plan: Plan, stage: StagePlan) -> Path:
    """Take part in a stage whose folder and records the first process of the job writes, once that has joined."""
    if plan.run.state(stage) != "done":
        _set_up_torch(plan)
        _write(plan, stage, plan.run.partial(stage))
    return plan.run.path(stage.folder)


def _demand(plan: Plan, stage: StagePlan, verb: str) -> None:
    if stage.name == "inputs":
        _make(plan, stage, "")
    state = plan.run.state(stage)
    if state != "done":
        why = f" ({', '.join(plan.run.changed(stage))} changed)" if state == "stale" else ""
        raise ValueError(
            f"{verb} builds on {stage.name}, which is {state}{why}; make it first, or all: featdiff run STUDY"
        )


def _make(plan: Plan, stage: StagePlan, prefix: str) -> None:
    if plan.run.state(stage) == "done" and (stage.name != "report" or plan.run.path("report.html").is_file()):
        print(f"{prefix}{stage.name}: up to date", file=sys.stderr)
        return
    print(f"{prefix}{stage.name}", file=sys.stderr, flush=True)
    _set_up_torch(plan)
    with plan.run.making(stage, resumable=definition(stage.name).resumable) as folder:
        _write(plan, stage, folder)
    write_json(plan.run.path("summary.json"), summary(plan))


def _write(plan: Plan, stage: StagePlan, folder: Path) -> None:
    definition(stage.name).run(plan, folder)


def _set_up_torch(plan: Plan) -> None:
    import torch

    if plan.study.threads:
        torch.set_num_threads(plan.study.threads)
    torch.manual_seed(plan.study.seed)


@contextmanager
def _alone(plan: Plan) -> Generator[None]:
    """Hold the run folder for this process; write the resolved study into it."""
    plan.run.folder.mkdir(parents=True, exist_ok=True)
    with plan.run.path(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another featdiff works on {plan.run.folder}; wait for it or give another --name"
            ) from None
        write_json(plan.run.path("study.json"), plan.study.model_dump(mode="json"))
        yield
