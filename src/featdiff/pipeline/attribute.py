"""`attribute` and `dynamics`: read the crosscoders, write who owns their features and how that came about."""

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from featdiff.attribution import Attribution, trajectory
from featdiff.crosscoder import Crosscoder
from featdiff.pipeline.plan import Plan
from featdiff.runs import Json, write_json


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
    path = plan.run.path("crosscoders", name, "quality.safetensors")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete {path.parents[1]} and run again") from error


def attribute(plan: Plan, folder: Path) -> None:
    """Write `<crosscoder>.safetensors` (scores) and `<crosscoder>.json` (tails) for every crosscoder."""
    for name in plan.crosscoders:
        attribution = attribution_of(plan, name)
        tensors = {key: getattr(attribution, key) for key in ("mas", "mas_l2", "cosine", "density", "alive")}
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
        write_json(folder / f"{name}.json", {"models": list(attribution.models), "tails": _tails(plan, attribution)})


def _tails(plan: Plan, attribution: Attribution) -> dict[str, Json]:
    cuts = plan.study.attribution.tails
    return {model: dict(attribution.tails(model, cuts)) for model in attribution.models}


def dynamics(plan: Plan, folder: Path) -> None:
    """Write `<tuned model>.json`: specificity ranks, overlap and rank shifts over its checkpoints."""
    for tuned in plan.tuned:
        name = plan.dynamics(tuned)
        if name is None:
            continue
        found = trajectory(
            attribution_of(plan, name),
            plan.checkpoints[tuned],
            top=plan.study.dynamics.top,
            alignment="joint",
            noise_floor=None,
        )
        write_json(
            folder / f"{tuned}.json",
            {key: _plain(value) for key, value in asdict(found).items() if key != "specificity"},
        )
        save_file({"specificity": found.specificity.contiguous()}, folder / f"{tuned}.safetensors")


def _plain(value: object) -> Json:
    """A value as JSON; undefined numbers (the paper's blanks) become null."""
    if isinstance(value, torch.Tensor):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if value != value else value
    assert value is None or isinstance(value, str | int | bool)
    return value
