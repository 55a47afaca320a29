"""`select`: features that differ where the tuned model is right and the base wrong (Sec. 3.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor

from featdiff.activations.models import Lineup
from featdiff.causal.batches import final_prompt_activations
from featdiff.causal.selection import Halves, branch_score, halves, swap_score, task_score
from featdiff.causal.selection import select as select_features
from featdiff.crosscoder import Crosscoder
from featdiff.pipeline.attribute import attribution_of
from featdiff.pipeline.evaluate import choice_tasks, outcomes_of, requests_of
from featdiff.pipeline.lineup import load_lineup
from featdiff.pipeline.plan import Plan
from featdiff.pipeline.stability import stability_of_features
from featdiff.runs import Record, write_json
from featdiff.study import BASE

ItemScore = Float[Tensor, "items features"]


@dataclass(frozen=True)
class TaskScores:
    """Per critical item of one task, how much more of each feature the tuned model has; by both readings."""

    task: str
    critical: int
    parts: Halves
    branch: ItemScore
    swap: ItemScore


def select(plan: Plan, folder: Path) -> None:
    """Write `selection.json` (what was chosen, by both scores) and `scores.safetensors`.

    Features are chosen twice: on all critical items, as the paper does, and on those that are not held out.
    """
    crosscoder, lineup = crosscoder_and_lineup(plan)
    alive = attribution_of(plan, plan.joint).alive
    tasks = [task.name for task in choice_tasks(plan) if task.role != "unseen"]
    if not tasks:
        raise ValueError(
            "no multiple-choice task takes part in the selection; give evaluation.tasks one whose role is not unseen"
        )
    found = [_task_scores(plan, crosscoder, lineup, task) for task in tasks]
    chosen = {
        "swap": _selections(plan, found, alive, lambda scores: scores.swap),
        "branch": _selections(plan, found, alive, lambda scores: scores.branch),
    }
    main = plan.study.selection.score
    record = chosen[main] | {"score": main, "lineup": plan.joint, "model": plan.study.selection.model}
    record |= {"critical": {scores.task: scores.critical for scores in found}, "by": chosen}
    if stability := stability_of_features(plan, plan.joint, chosen[main]["chosen"], plan.study.selection.model):
        record["stability"] = stability
    write_json(folder / "selection.json", record)
    tensors = {f"{name}.{kind}": task_score(getattr(s, kind)) for s in found for name in [s.task] for kind in chosen}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "scores.safetensors")


def crosscoder_and_lineup(plan: Plan) -> tuple[Crosscoder, Lineup]:
    """The crosscoder that supplies the features, and its models up to the tap."""
    crosscoder = Crosscoder.load(plan.run.path("crosscoders", plan.joint)).to(plan.study.lineup.device)
    return crosscoder, load_lineup(plan, crosscoder.models)


def held_out_parts(plan: Plan, task: str) -> Halves:
    """The critical items of a task, parted into those that features are chosen on and those that are held out."""
    critical = outcomes_of(plan, task).critical(BASE, plan.study.selection.model)
    return halves(critical, plan.study.selection.held_out, plan.study.seed)


def _task_scores(plan: Plan, crosscoder: Crosscoder, lineup: Lineup, task: str) -> TaskScores:
    tuned = plan.study.selection.model
    critical = outcomes_of(plan, task).critical(BASE, tuned)
    requests = requests_of(plan, task, lineup).select(critical)
    residuals = final_prompt_activations(requests, lineup, batch_size=plan.study.intervention.batch_size)
    residuals = residuals.to(crosscoder.W_dec.device)
    of, base = crosscoder.index(tuned), crosscoder.index(BASE)
    return TaskScores(
        task=task,
        critical=len(critical),
        parts=_positions(held_out_parts(plan, task), critical),
        branch=branch_score(crosscoder, residuals[:, of], residuals[:, base], tuned, BASE).cpu(),
        swap=swap_score(crosscoder, residuals, tuned, BASE).cpu(),
    )


def _positions(parts: Halves, critical: Tensor) -> Halves:
    """The parts as positions among the critical items."""
    return Halves(torch.searchsorted(critical, parts.choosing), torch.searchsorted(critical, parts.held_out))


def _selections(
    plan: Plan, found: list[TaskScores], alive: Bool[Tensor, " features"], of: Callable[[TaskScores], ItemScore]
) -> Record:
    tasks, settings = [scores.task for scores in found], plan.study.selection
    threshold, at_least = settings.threshold, settings.at_least
    whole = torch.stack([task_score(of(scores)) for scores in found])
    half = torch.stack([task_score(of(scores)[scores.parts.choosing]) for scores in found])
    selection = select_features(whole, tasks, threshold, alive, at_least)
    without_held_out = select_features(half, tasks, threshold, alive, at_least)
    return {**selection.to_json(), "without_held_out": without_held_out.to_json()}
