"""One model on the bench: its edits, their controls, and what it answers under each."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor

from featdiff.attribution import Attribution
from featdiff.config.study import BASE
from featdiff.crosscoder import Crosscoder
from featdiff.evaluation.batches import final_prompt_activations
from featdiff.evaluation.results import Requests
from featdiff.intervention.activity import Activity, activity
from featdiff.intervention.controls import activity_matched, mean_differences, random_directions, uniform_alive
from featdiff.intervention.edit_values import EditValue
from featdiff.intervention.edits import Edit
from featdiff.intervention.effects import MATCHED, ControlName, EditedAnswers
from featdiff.intervention.scoring import correctness, predictions, score
from featdiff.models.loading import Lineup, load_model
from featdiff.models.partial_model import UpperModel
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of, crosscoder_and_lineup
from featdiff.stats import Direction

KINDS: tuple[ControlName, ...] = (
    MATCHED,
    "uniform alive",
    "random directions",
    "mean difference",
    "both right",
    "both wrong",
)


@dataclass(frozen=True)
class PlannedEdit:
    """One edit that is put to the test: of which model, to which level, and what it should do."""

    model: str
    value: EditValue
    goal: Direction


@dataclass(frozen=True, eq=False)
class Bench:
    """All that interventions on one model need."""

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
    def redrawn(self) -> dict[str, Int[Tensor, "draws features"]]:
        """Features chosen on items that both models get right, or both wrong; the first named first."""
        return load_file(self.plan.run.path("selection", "controls.safetensors"))


def other_of(plan: Plan, model: str) -> str:
    """The tuned model for the base, the base for the tuned model."""
    return plan.study.selection.model if model == BASE else BASE


@dataclass(frozen=True, eq=False)
class Measured:
    """How active features are on a task's edited tokens, in the bench's model and patched from the other one."""

    own: Activity
    given: Activity


def measured(bench: Bench, requests: Requests, levels: list[EditValue]) -> Measured:
    """Run the lower halves once or twice over the task; the second time only where a level wants the other's values."""
    settings = bench.plan.study.intervention
    quantiles = sorted({level.by for level in levels if level.kind == "quantile"})

    def run(source: str | None) -> Activity:
        return activity(
            requests,
            bench.lineup,
            bench.crosscoder,
            bench.model,
            settings.positions,
            batch_size=settings.batch_size,
            reading=settings.reading,
            source=source,
            quantiles=quantiles,
        )

    own = run(None)
    return Measured(own, run(bench.other) if any(level.kind == "tuned_mean" for level in levels) else own)


def edit_of(bench: Bench, test: PlannedEdit, features: Int[Tensor, " n"], found: Measured) -> Edit:
    """Set features to the level of a test."""
    positions = bench.plan.study.intervention.positions
    return test.value.edit(features, found.own, found.given, positions, test.goal)


def controls_of(
    bench: Bench, test: PlannedEdit, features: Int[Tensor, " n"], requests: Requests, found: Measured
) -> dict[ControlName, list[Edit]]:
    """Every kind of control for these features, as often as the study draws it."""
    plan, settings, seed = bench.plan, bench.plan.study.intervention, bench.plan.study.seed
    alive, selected = bench.attribution.alive, edit_of(bench, test, features, found)
    made = dict[ControlName, list[Edit]]()

    def sets(rows: Int[Tensor, "draws n"]) -> list[Edit]:
        return [edit_of(bench, test, row, found) for row in rows]

    def along(rows: Float[Tensor, "draws d_model"]) -> list[Edit]:
        return [
            Edit(features, selected.value, selected.positions, selected.label, selected.goal, along=row) for row in rows
        ]

    for kind in KINDS:
        draws = settings.drawn(kind)
        if not draws:
            continue
        match kind:
            case "activity-matched":
                own = found.own
                rows = activity_matched(features, own.density, own.contribution, alive, draws, seed).features
                made[kind] = sets(rows)
            case "uniform alive":
                made[kind] = sets(uniform_alive(features, alive, draws, seed).features)
            case "random directions":
                made[kind] = along(random_directions(bench.lineup.d_model, draws, seed))
            case "mean difference":
                residuals = final_prompt_activations(requests, bench.lineup, batch_size=settings.batch_size)
                there, here = (residuals[:, bench.lineup.names.index(name)] for name in (bench.other, bench.model))
                made[kind] = along(mean_differences(there, here, draws, seed))
            case "both right" | "both wrong":
                made[kind] = sets(bench.redrawn[kind][:draws, : len(features)])
    assert MATCHED in made, f"{plan.study.name} draws features matched by activity"
    return made


def answers_of(
    bench: Bench, test: PlannedEdit, requests: Requests, features: Int[Tensor, " n"], found: Measured
) -> tuple[Bool[Tensor, " items"], EditedAnswers, Int[Tensor, "2 items"]]:
    """Which items are right before, under the edit, and under every control; and the choices before and under it."""
    edits = controls_of(bench, test, features, requests, found)
    flat = [edit_of(bench, test, features, found), *(edit for kind in edits.values() for edit in kind)]
    log_likelihood = scores(bench, requests, flat)
    metric = bench.plan.study.evaluation.metric
    right = correctness(log_likelihood, requests, metric)
    kinds = dict(zip(edits, right[2:].split([len(one) for one in edits.values()]), strict=True))
    matched = kinds.pop(MATCHED)
    return right[0], EditedAnswers(right[1], matched, kinds), predictions(log_likelihood[:2], requests, metric)


def scores(bench: Bench, requests: Requests, edits: list[Edit]) -> Float[Tensor, "variants requests"]:
    """Log-likelihoods of the bench's model: row 0 unedited, row i + 1 under `edits[i]`."""
    settings = bench.plan.study.intervention
    return score(
        requests,
        bench.lineup,
        bench.upper,
        bench.crosscoder,
        bench.model,
        edits,
        batch_size=settings.batch_size,
        reading=settings.reading,
        error=settings.error,
    )


def nothing_moved(before: Bool[Tensor, " items"], answers: EditedAnswers) -> EditedAnswers:
    """Answers of the same draws under edits that change nothing."""
    others: dict[ControlName, Bool[Tensor, "_ items"]] = {
        kind: before.repeat(len(draws), 1) for kind, draws in answers.others.items()
    }
    return EditedAnswers(before.clone(), before.repeat(len(answers.controls), 1), others)


def sampled(count: int, most: int | None, seed: int) -> Int[Tensor, " items"]:
    """All items, or `most` of them, drawn at random and in order."""
    if most is None or most >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values
