"""The crosscoders of a run with who owns their features, for what compares several of them."""

import torch

from featdiff.analyses.ownership.compute import attribution_of
from featdiff.attribution.stability import Scored
from featdiff.crosscoder import Crosscoder
from featdiff.files import Json
from featdiff.run.plan import Plan


def scored(plan: Plan, name: str) -> Scored:
    """One crosscoder, on the device of the study, and its attribution."""
    crosscoder = Crosscoder.load(plan.run.path("crosscoders", name)).to(plan.study.lineup.device)
    return Scored(crosscoder, attribution_of(plan, name))


def scored_seeds(plan: Plan, lineup: str) -> list[Scored]:
    """The crosscoders of all seeds of one lineup, in the order of the study."""
    return [scored(plan, name) for name in plan.seeds[lineup]]


def plain(value: object) -> Json:
    """A value as JSON; undefined numbers become null."""
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return None if value != value else value
    assert value is None or isinstance(value, str | int | bool)
    return value
