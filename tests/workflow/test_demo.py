"""The demo's study file and its inputs belong together."""

from pathlib import Path

import pytest

from featdiff.config.study_file import read_study
from featdiff.demo import run
from featdiff.run.plan import Plan
from featdiff.workflow.demo import demo_study
from featdiff.workflow.registry import stages_of


def test_the_demo_is_a_study_of_the_shipped_inputs_with_every_stage() -> None:
    plan = Plan(read_study(demo_study()))
    assert plan.uses_demo
    made, read = (
        ["inputs", "sft", "grpo", "rft"],
        ["quality", "attribute", "stability", "drift", "dynamics", "select", "intervene", "ways", "sensitivity"],
    )
    assert [stage.name for stage in stages_of(plan)] == [*made, "evaluate", "train", *read, "examples", "report"]
    roles = [task.role for task in plan.study.evaluation.tasks]
    assert roles.count("unseen") == 2 and len(roles) >= 7


@pytest.mark.slow
def test_the_inputs_hold_whatever_the_study_names(tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym")
    study = read_study(demo_study())
    plan = Plan(study.model_copy(update={"runs": str(tmp_path)}))
    run(plan, plan.run.path("inputs"))
    assert study.posttrain is not None and study.posttrain.teacher is not None
    named = [study.lineup.base, study.posttrain.prompts, study.posttrain.teacher]
    named += [source.path for source in study.corpus.sources]
    assert all(Path(plan.located(path)).exists() for path in named)
    folder = Path(plan.located(study.evaluation.task_folder or ""))
    assert {task.name for task in study.evaluation.tasks} <= {file.stem for file in folder.glob("*.yaml")}
