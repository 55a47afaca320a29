"""Inputs of estimates: of a study that was run, and of the paper's."""

from dataclasses import replace
from pathlib import Path

from tiny_study import changed

from featdiff.config.study import Study
from featdiff.config.study_file import read_study
from featdiff.costs.assumptions import Assumptions
from featdiff.costs.estimate import CostInputs, cost_inputs
from featdiff.run.plan import Plan

STUDIES = Path(__file__).parents[1] / "studies"


def planned(study: Study, kind: str | None = None, gpus: int = 1, **assumed: float) -> CostInputs:
    """A study on devices of a kind, with the usual assumptions but for those given."""
    return cost_inputs(study, kind, gpus, replace(Assumptions(), **assumed))


def paper(kind: str | None = None, gpus: int = 1, **settings: object) -> CostInputs:
    """Qwen3-4B-Base with the paper's settings but for those given, on an H200."""
    return planned(changed(read_study(STUDIES / "qwen3-4b.toml"), **settings), kind, gpus)


def varied(inputs: CostInputs, **settings: object) -> CostInputs:
    """The same with other settings of its study."""
    return replace(inputs, plan=Plan(changed(inputs.plan.study, **settings)))
