"""Interventions on one model: edits of its features, their controls, and its answers under each.

experiment = Experiment(crosscoder, lineup, upper, attribution.alive, "rl", "base", InterventionSettings())
test = PlannedEdit("rl", EditValue("zero", 0.0, "base"), "decrease")
effect, _ = experiment.effect(test, requests, chosen, half, sets, task="arc")
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.config.intervention import ControlName, InterventionSettings
from featdiff.crosscoder.model import Crosscoder
from featdiff.evaluation.batches import final_prompt_activations
from featdiff.evaluation.results import Requests
from featdiff.intervention.activity import Activity, activity
from featdiff.intervention.controls import activity_matched, mean_differences, random_directions, uniform_alive
from featdiff.intervention.edit_values import EditValue
from featdiff.intervention.edits import Edit
from featdiff.intervention.effects import MATCHED, EditedAnswers, Effect, ItemSets, measure_effect
from featdiff.intervention.scoring import correctness, predictions, score
from featdiff.models.loading import Lineup
from featdiff.models.partial_model import UpperModel
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
    """An edit to be tested: the model, the values that features are set to, and the expected change of accuracy."""

    model: str
    value: EditValue
    goal: Direction


@dataclass(frozen=True, eq=False)
class MeasuredActivity:
    """Activity of the features on a task's edited tokens."""

    own: Activity
    """In the edited model."""
    given: Activity
    """Of the values that a patch from the other model would set."""


@dataclass(frozen=True, eq=False)
class TaskAnswers:
    """Answers to a task's items, unedited and edited."""

    before: Bool[Tensor, " items"]
    """Whether each item is right without an edit."""
    edited: EditedAnswers
    choices: Int[Tensor, "2 items"]
    """The choices predicted before and under the edit."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """What interventions on one model need; no study and no files.

    `lineup` holds the crosscoder's models below the hook point, `upper` the layers of `model` above it. `other` is the
    model whose values edits can bring in: the base for a tuned model, the tuned one for the base.
    """

    crosscoder: Crosscoder
    lineup: Lineup
    upper: UpperModel
    alive: Bool[Tensor, " features"]
    """Features from which controls are drawn (`Attribution.alive`)."""
    model: str
    other: str
    settings: InterventionSettings
    metric: Literal["acc", "acc_norm"] = "acc"
    seed: int = 0
    redrawn: Mapping[ControlName, Int[Tensor, "_ ranked"]] = field(default_factory=dict)
    """Features selected on items that both models get right, or both wrong, best first: such controls need them."""

    def activity(self, requests: Requests, values: Sequence[EditValue]) -> MeasuredActivity:
        """Measure activity on a task; the other model's values only where one of the edit values wants them."""
        own = self._activity(requests, values, None)
        wanted = any(value.kind == "tuned_mean" for value in values)
        return MeasuredActivity(own, self._activity(requests, values, self.other) if wanted else own)

    def edit(self, test: PlannedEdit, features: Int[Tensor, " n"], found: MeasuredActivity) -> Edit:
        """Set features to the value of a planned edit."""
        return test.value.edit(features, found.own, found.given, self.settings.positions, test.goal)

    def controls(
        self, test: PlannedEdit, features: Int[Tensor, " n"], requests: Requests, found: MeasuredActivity
    ) -> dict[ControlName, list[Edit]]:
        """Draw every kind of control for these features, as often as the settings say."""
        made = dict[ControlName, list[Edit]]()
        for kind in KINDS:
            if draws := self.settings.drawn(kind):
                made[kind] = self._controls_of(kind, draws, test, features, requests, found)
        assert MATCHED in made, "the settings refuse to leave out controls matched by activity"
        return made

    def answers(
        self, test: PlannedEdit, requests: Requests, features: Int[Tensor, " n"], found: MeasuredActivity
    ) -> TaskAnswers:
        """Answer a task's items unedited, under the edit, and under every control."""
        controls = self.controls(test, features, requests, found)
        edits = [self.edit(test, features, found), *(edit for kind in controls.values() for edit in kind)]
        log_likelihood = self.score(requests, edits)
        right = correctness(log_likelihood, requests, self.metric)
        kinds = dict(zip(controls, right[2:].split([len(kind) for kind in controls.values()]), strict=True))
        matched = kinds.pop(MATCHED)
        choices = predictions(log_likelihood[:2], requests, self.metric)
        return TaskAnswers(right[0], EditedAnswers(right[1], matched, kinds), choices)

    def score(self, requests: Requests, edits: Sequence[Edit]) -> Float[Tensor, "variants requests"]:
        """Log-likelihoods of the requests: row 0 unedited, row i + 1 under `edits[i]`."""
        settings = self.settings
        return score(
            requests,
            self.lineup,
            self.upper,
            self.crosscoder,
            self.model,
            edits,
            batch_size=settings.batch_size,
            reading=settings.reading,
            error=settings.error,
        )

    def effect(
        self,
        test: PlannedEdit,
        requests: Requests,
        chosen: Int[Tensor, " n"],
        half: Int[Tensor, " half"] | None,
        sets: ItemSets,
        *,
        task: str,
        found: MeasuredActivity | None = None,
    ) -> tuple[Effect, TaskAnswers]:
        """Measure the effect of an edit on one task, and return the answers that it rests on.

        Arguments:
            test: the edit.
            requests: the task's items; `sets` are positions among them.
            chosen: features selected on all critical items.
            half: features selected without the held-out items, edited on these; None where no critical item had a part
                in the selection, as in an unseen task.
            sets: critical, mirror and held-out items.
            task: name of the task.
            found: activity on the task, where it is already measured.
        """
        found = found or self.activity(requests, [test.value])
        answers = self.answers(test, requests, chosen, found)
        held_out = answers.edited if half is None else self._on_part(test, requests, half, sets.held_out, answers)
        effect = measure_effect(
            task,
            self.model,
            self.edit(test, chosen, found),
            answers.before,
            answers.edited,
            held_out,
            sets,
            resamples=self.settings.bootstrap,
            confidence=self.settings.confidence,
            seed=self.seed,
        )
        return effect, answers

    def _on_part(
        self,
        test: PlannedEdit,
        requests: Requests,
        features: Int[Tensor, " half"],
        part: Int[Tensor, " part"],
        whole: TaskAnswers,
    ) -> EditedAnswers:
        """Answers on some of the items, by as many controls as on all; the other items keep their unedited answers."""
        answers = unchanged(whole.before, whole.edited)
        if len(part) and len(features):
            some = requests.select(part)
            found = self.answers(test, some, features, self.activity(some, [test.value])).edited
            answers.after[part] = found.after
            answers.controls[:, part] = found.controls
            for kind, draws in answers.others.items():
                draws[:, part] = found.others[kind]
        return answers

    def _activity(self, requests: Requests, values: Sequence[EditValue], source: str | None) -> Activity:
        settings = self.settings
        return activity(
            requests,
            self.lineup,
            self.crosscoder,
            self.model,
            settings.positions,
            batch_size=settings.batch_size,
            reading=settings.reading,
            source=source,
            quantiles=sorted({value.by for value in values if value.kind == "quantile"}),
        )

    def _controls_of(
        self,
        kind: ControlName,
        draws: int,
        test: PlannedEdit,
        features: Int[Tensor, " n"],
        requests: Requests,
        found: MeasuredActivity,
    ) -> list[Edit]:
        def sets(rows: Int[Tensor, "draws n"]) -> list[Edit]:
            return [self.edit(test, row, found) for row in rows]

        def along(rows: Float[Tensor, "draws d_model"]) -> list[Edit]:
            edit = self.edit(test, features, found)
            return [replace(edit, along=row) for row in rows]

        match kind:
            case "activity-matched":
                own = found.own
                drawn = activity_matched(features, own.density, own.contribution, self.alive, draws, self.seed)
                return sets(drawn.features)
            case "uniform alive":
                return sets(uniform_alive(features, self.alive, draws, self.seed).features)
            case "random directions":
                return along(random_directions(self.lineup.d_model, draws, self.seed))
            case "mean difference":
                residuals = final_prompt_activations(requests, self.lineup, batch_size=self.settings.batch_size)
                there, here = (residuals[:, self.lineup.names.index(name)] for name in (self.other, self.model))
                return along(mean_differences(there, here, draws, self.seed))
            case "both right" | "both wrong":
                return sets(self.redrawn[kind][:draws, : len(features)])


def unchanged(before: Bool[Tensor, " items"], answers: EditedAnswers) -> EditedAnswers:
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
