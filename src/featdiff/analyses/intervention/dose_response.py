"""Dose curves: accuracy with the chosen features set to multiples of their maximum, beside features like them."""

import torch
from jaxtyping import Int
from torch import Tensor

from featdiff.evaluation.results import Requests
from featdiff.files import Record
from featdiff.intervention.controls import activity_matched
from featdiff.intervention.edit_values import EditValue
from featdiff.intervention.scoring import correctness
from featdiff.run.intervention_context import Bench, Measured, PlannedEdit, edit_of, other_of, scores
from featdiff.run.plan import Plan
from featdiff.stats import Direction


def dose_levels(plan: Plan, model: str) -> list[EditValue]:
    """The levels of the sweep."""
    return [EditValue("times_max", by, other_of(plan, model)) for by in plan.study.intervention.doses]


def doses(
    bench: Bench,
    task: str,
    goal: Direction,
    requests: Requests,
    chosen: Int[Tensor, " n"],
    found: Measured,
    critical: Int[Tensor, " critical"],
) -> Record:
    """Accuracy on all items and on the critical ones at every dose, in one pass over the task.

    Controls are the same sets of features at every dose; of them the mean, smallest and largest accuracy are kept.
    """
    settings, own = bench.plan.study.intervention, found.own
    sets = [chosen]
    if settings.dose_controls:
        alive, seed = bench.attribution.alive, bench.plan.study.seed
        drawn = activity_matched(chosen, own.density, own.contribution, alive, settings.dose_controls, seed)
        sets += list(drawn.features)
    levels = dose_levels(bench.plan, bench.model)
    edits = [
        edit_of(bench, PlannedEdit(bench.model, level, goal), features, found) for level in levels for features in sets
    ]
    right = correctness(scores(bench, requests, edits), requests, bench.plan.study.evaluation.metric).double()
    before, after = right[0], right[1:].reshape(len(levels), len(sets), -1)
    return {
        "task": task,
        "model": bench.model,
        "features": len(chosen),
        "unit": "multiples of the maximum",
        "doses": list(settings.doses),
        "draws": len(sets) - 1,
        "sets": {
            name: _curve(before[items], after[:, :, items])
            for name, items in (("all", torch.arange(len(before))), ("critical", critical))
        },
    }


def _curve(before: Tensor, after: Tensor) -> Record:
    if not len(before):
        return {"n": 0, "before": None, "selected": [], "control": []}
    shares = after.mean(dim=-1)
    control = [{"mean": float(row.mean()), "low": float(row.min()), "high": float(row.max())} for row in shares[:, 1:]]
    return {
        "n": len(before),
        "before": float(before.mean()),
        "selected": shares[:, 0].tolist(),
        "control": control if shares.shape[1] > 1 else [],
    }
