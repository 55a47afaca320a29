"""Interventions of a study: its edits, the items on which they are tested, and the experiment on one of its models."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor

from featdiff.attribution import Attribution
from featdiff.config.intervention import REDRAWN
from featdiff.config.study import BASE, TaskSettings
from featdiff.crosscoder import Crosscoder
from featdiff.evaluation.results import Requests
from featdiff.intervention.edit_values import EditValue
from featdiff.intervention.edits import Edit
from featdiff.intervention.effects import EditedAnswers, ItemSets
from featdiff.intervention.experiment import KINDS, Experiment, PlannedEdit, sampled
from featdiff.intervention.experiment import MeasuredActivity as Measured
from featdiff.intervention.experiment import unchanged as nothing_moved
from featdiff.models.loading import Lineup, load_model
from featdiff.models.partial_model import UpperModel
from featdiff.run.evaluation import held_out_parts, outcomes_of
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of, crosscoder_and_lineup

__all__ = [
    "KINDS",
    "Bench",
    "Measured",
    "PlannedEdit",
    "answers_of",
    "edit_of",
    "edited_items",
    "experiment_of",
    "item_sets",
    "measured",
    "nothing_moved",
    "other_of",
    "paper_edits",
    "planned_edits",
    "sampled",
    "scores",
]


@dataclass(frozen=True, eq=False)
class Bench:
    """All that interventions on one model need, and the study that it belongs to."""

    plan: Plan
    crosscoder: Crosscoder
    lineup: Lineup
    upper: UpperModel
    attribution: Attribution
    model: str

    @staticmethod
    def of(plan: Plan, model: str) -> "Bench":
        """Load the crosscoder, the lineup up to the tap, and the whole model."""
        crosscoder, lineup = crosscoder_and_lineup(plan)
        settings = plan.study.lineup
        whole = load_model(
            plan.paths[model],
            dtype=settings.dtype,
            device=settings.device,
            trust_remote_code=settings.trust_remote_code,
        )
        upper = UpperModel(whole, lineup.layers)
        return Bench(plan, crosscoder, lineup, upper, attribution_of(plan, plan.joint), model)

    @property
    def other(self) -> str:
        """The model whose values can be brought in: the tuned one for the base, the base for the tuned one."""
        return other_of(self.plan, self.model)

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment with the study's settings."""
        return experiment_of(self.plan, self.crosscoder, self.lineup, self.upper, self.attribution, self.model)


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
    """Critical, mirror and held-out items of a task, by position among `items`; of an unseen task all are held out."""
    outcomes, tuned = outcomes_of(plan, task.name), plan.study.selection.model
    critical = outcomes.critical(BASE, tuned)
    held_out = critical if task.role == "unseen" else held_out_parts(plan, task.name).held_out
    sets = critical, outcomes.mirror(BASE, tuned), held_out
    return ItemSets(*(torch.isin(items, wanted).nonzero().flatten() for wanted in sets))


def other_of(plan: Plan, model: str) -> str:
    """The tuned model for the base, the base for the tuned model."""
    return plan.study.selection.model if model == BASE else BASE


def measured(bench: Bench, requests: Requests, values: Sequence[EditValue]) -> Measured:
    """Measure how active features are on a task."""
    return bench.experiment.activity(requests, values)


def edit_of(bench: Bench, test: PlannedEdit, features: Int[Tensor, " n"], found: Measured) -> Edit:
    """Set features to the value of a planned edit."""
    return bench.experiment.edit(test, features, found)


def answers_of(
    bench: Bench, test: PlannedEdit, requests: Requests, features: Int[Tensor, " n"], found: Measured
) -> tuple[Bool[Tensor, " items"], EditedAnswers, Int[Tensor, "2 items"]]:
    """Which items are right before, under the edit, and under every control; and the choices before and under it."""
    answers = bench.experiment.answers(test, requests, features, found)
    return answers.before, answers.edited, answers.choices


def scores(bench: Bench, requests: Requests, edits: Sequence[Edit]) -> Float[Tensor, "variants requests"]:
    """Log-likelihoods of the bench's model: row 0 unedited, row i + 1 under `edits[i]`."""
    return bench.experiment.score(requests, edits)
