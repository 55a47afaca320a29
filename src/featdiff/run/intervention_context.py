"""Interventions of a study: its edits, the items on which they are tested, and the experiment on one of its models."""

import torch
from jaxtyping import Int
from safetensors.torch import load_file
from torch import Tensor

from featdiff.attribution import Attribution
from featdiff.config.intervention import REDRAWN
from featdiff.config.study import BASE, TaskSettings
from featdiff.crosscoder import Crosscoder
from featdiff.evaluation.results import Requests
from featdiff.intervention.edit_values import EditValue
from featdiff.intervention.effects import ItemSets
from featdiff.intervention.experiment import Experiment, PlannedEdit, sampled
from featdiff.models.loading import Lineup
from featdiff.models.partial_model import UpperModel
from featdiff.run.evaluation import held_out_parts, outcomes_of, selecting_tasks
from featdiff.run.models import load_whole
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of, crosscoder_and_lineup


def load_experiment(plan: Plan, model: str) -> Experiment:
    """The experiment on one model with the study's own crosscoder, the lineup and the whole model loaded."""
    crosscoder, lineup = crosscoder_and_lineup(plan)
    upper = UpperModel(load_whole(plan, plan.paths[model]), lineup.layers)
    return experiment_of(plan, crosscoder, lineup, upper, attribution_of(plan, plan.joint), model)


def experiment_of(
    plan: Plan, crosscoder: Crosscoder, lineup: Lineup, upper: UpperModel, attribution: Attribution, model: str
) -> Experiment:
    """The experiment on one model with the study's settings."""
    study, redrawn = plan.study, plan.run.path("selection", "controls.safetensors")
    drawn = load_file(redrawn) if redrawn.is_file() else {}
    return Experiment(
        crosscoder,
        lineup,
        upper,
        attribution.alive,
        model,
        other_of(plan, model),
        study.intervention,
        study.evaluation.metric,
        study.seed,
        {kind: drawn[kind] for kind in REDRAWN if kind in drawn},
    )


def paper_edits(plan: Plan) -> list[PlannedEdit]:
    """The paper's two: features set to 0 in the tuned model, and to a fixed value in the base."""
    tuned = plan.study.selection.model
    return [
        PlannedEdit(tuned, EditValue("zero", 0.0, BASE), "decrease"),
        PlannedEdit(BASE, EditValue("set", plan.study.intervention.amplify, tuned), "increase"),
    ]


def planned_edits(plan: Plan) -> list[PlannedEdit]:
    """The paper's two edits, and the further ones of the study."""
    edits, tuned = paper_edits(plan), plan.study.selection.model
    for more in plan.study.intervention.also:
        model = BASE if more.model == "base" else tuned
        goal = "increase" if model == BASE else "decrease"
        edits.append(PlannedEdit(model, EditValue(more.kind, more.by, other_of(plan, model)), goal))
    return list(dict.fromkeys(edits))


def edited_items(plan: Plan, requests: Requests) -> tuple[Int[Tensor, " items"], Requests]:
    """The items of a task on which models are edited, and their requests."""
    items = sampled(len(requests.sample_ids), plan.study.intervention.items, plan.study.seed)
    return items, requests.select(items)


def item_sets(plan: Plan, task: TaskSettings, items: Int[Tensor, " items"]) -> ItemSets:
    """Critical, mirror and held-out items of a task, by position among `items`.

    All critical items are held out of a task that takes no part in the selection.
    """
    outcomes, tuned = outcomes_of(plan, task.name), plan.study.selection.model
    critical = outcomes.critical(BASE, tuned)
    held_out = held_out_parts(plan, task.name).held_out if task.name in selecting_tasks(plan) else critical
    sets = critical, outcomes.mirror(BASE, tuned), held_out
    return ItemSets(*(torch.isin(items, wanted).nonzero().flatten() for wanted in sets))


def other_of(plan: Plan, model: str) -> str:
    """The tuned model for the base, the base for the tuned model."""
    return plan.study.selection.model if model == BASE else BASE
