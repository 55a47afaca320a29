"""The crosscoders of a run with who owns their features, for what compares several of them."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from featdiff.attribution import Attribution
from featdiff.attribution.stability import ScoredCrosscoder
from featdiff.crosscoder import Crosscoder
from featdiff.files import Json
from featdiff.models.loading import Lineup
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan


def scored(plan: Plan, name: str) -> ScoredCrosscoder:
    """One crosscoder, on the device of the study, and its attribution."""
    crosscoder = Crosscoder.load(plan.run.path("crosscoders", name)).to(plan.study.lineup.device)
    return ScoredCrosscoder(crosscoder, attribution_of(plan, name))


def scored_seeds(plan: Plan, lineup: str) -> list[ScoredCrosscoder]:
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


def attribution_of(plan: Plan, name: str) -> Attribution:
    """The attribution of one crosscoder of the run, by the study's norm, units and alive filter."""
    folder, settings = plan.run.path("crosscoders", name), plan.study.attribution
    return Attribution.of(
        Crosscoder.load(folder),
        p=settings.norm_p,
        space=settings.space,
        density=held_out_statistics(plan, name)["density"],
        min_density=settings.min_density,
    )


def held_out_statistics(plan: Plan, name: str) -> dict[str, Tensor]:
    """`density` [features] and `mean` [models d_model] of one crosscoder on held-out tokens, from `train`."""
    return read_tensors(plan.run.path("crosscoders", name, "quality.safetensors"), plan.run.path("crosscoders"))


def read_tensors(path: Path, stage: Path) -> dict[str, Tensor]:
    """The tensors of a file; ValueError names the folder of the stage to delete where it is damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete {stage} and run again") from error


def crosscoder_and_lineup(plan: Plan) -> tuple[Crosscoder, Lineup]:
    """The crosscoder that supplies the features, and its models up to the tap."""
    crosscoder = Crosscoder.load(plan.run.path("crosscoders", plan.joint)).to(plan.study.lineup.device)
    return crosscoder, load_lineup(plan, crosscoder.models)
