"""Methods that put the tuned model's behaviour into the base, made on half of the items, and random edits as large.

| name             | what is done to the base                                       | chosen       |
|------------------|----------------------------------------------------------------|--------------|
| features         | selected features set to multiples of the tuned model's mean   | the multiple |
| features_printed | the same features set to one value, as the paper prints it     | nothing      |
| steering         | the mean difference at the hook point, tuned less base, added  | its strength |
| neurons          | the MLP neurons that differ most set to the tuned model's mean | how many     |

Chosen is what raises accuracy most beyond random edits as large, on all items of the choosing half. Where the base is
wrong more often than by chance, or on critical items alone, damage raises accuracy too, and the largest strength would
always win.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from featdiff.config.intervention import WaysSettings
from featdiff.evaluation.batches import final_prompt_activations
from featdiff.evaluation.outcomes import Outcomes
from featdiff.evaluation.results import Requests
from featdiff.intervention.controls import activity_matched, random_directions
from featdiff.intervention.edit_values import EditValue
from featdiff.intervention.edited_model import EditedModel
from featdiff.intervention.effects import MATCHED, ControlName
from featdiff.intervention.experiment import Experiment, MeasuredActivity, PlannedEdit
from featdiff.intervention.neuron_edits import NeuronStatistics, most_moved, random_neuron_edits, set_to_means
from featdiff.intervention.scoring import correctness, predictions
from featdiff.intervention.steering import (
    EditingMethod,
    NeuronEditedModel,
    SteeredModel,
    UneditedModel,
    prompt_end_states,
    score_methods,
)
from featdiff.models.loading import PreTrainedModel
from featdiff.models.neurons import neurons_per_block

EditName = Literal["features", "features_printed", "steering", "neurons"]
EDITS: tuple[EditName, ...] = ("features", "features_printed", "steering", "neurons")
Maker = Callable[[float, int], list[EditingMethod]]
"""From what can be chosen, and a number of draws, to the method and so many random edits as large."""
Tried = tuple[float, float, float]
"""A value that could be chosen, the gain of the method made with it, and that of random edits."""


@dataclass(frozen=True, eq=False)
class TaskItems:
    """Items of several tasks as one list, and the recorded answers of the models to them."""

    requests: Requests
    tasks: tuple[str, ...]
    task_of: Int[Tensor, " items"]
    correct: Mapping[str, Bool[Tensor, " items"]]
    """By model."""
    prediction: Mapping[str, Int[Tensor, " items"]]
    base: str
    tuned: str

    @staticmethod
    def of(
        outcomes: Sequence[Outcomes], requests: Sequence[Requests], rows: Sequence[Tensor], base: str, tuned: str
    ) -> "TaskItems":
        """Some items of each task, by index, from the outcomes on all its items and all its requests."""

        def joined(tables: Sequence[Tensor], model: str) -> Tensor:
            index = outcomes[0].models.index(model)
            return torch.cat([table[index, items] for table, items in zip(tables, rows, strict=True)])

        correct, prediction = [one.correct for one in outcomes], [one.prediction for one in outcomes]
        return TaskItems(
            requests=Requests.together([one.select(items) for one, items in zip(requests, rows, strict=True)]),
            tasks=tuple(one.task for one in outcomes),
            task_of=torch.arange(len(rows)).repeat_interleave(torch.tensor([len(items) for items in rows])),
            correct={model: joined(correct, model) for model in outcomes[0].models},
            prediction={model: joined(prediction, model) for model in outcomes[0].models},
            base=base,
            tuned=tuned,
        )

    @property
    def critical(self) -> Bool[Tensor, " items"]:
        """Base wrong, tuned model right."""
        return ~self.correct[self.base] & self.correct[self.tuned]

    @property
    def mirror(self) -> Bool[Tensor, " items"]:
        """Base right, tuned model wrong."""
        return self.correct[self.base] & ~self.correct[self.tuned]

    def of_task(self, task: int) -> Bool[Tensor, " items"]:
        """The items of one task, by its place in `tasks`."""
        return self.task_of == task

    def only(self, wanted: Bool[Tensor, " items"]) -> Requests:
        """The requests of some of the items."""
        return self.requests.select(wanted.nonzero().flatten())


@dataclass(frozen=True, eq=False)
class MadeMethod:
    """One editing method, ready to run, and random edits as large as it."""

    name: str
    title: str
    method: EditingMethod
    controls: Sequence[EditingMethod] = ()
    kind: ControlName = MATCHED
    """What the controls are."""
    tried: tuple[Tried, ...] = ()

    @property
    def edits(self) -> bool:
        """Whether the base is edited; otherwise a model was tuned."""
        return self.name in EDITS


@dataclass(frozen=True, eq=False)
class MethodMaker:
    """What editing methods are made from.

    `experiment` is on the base, `features` are those selected on the choosing half, `load_model` gives a whole model by
    its name.
    """

    experiment: Experiment
    settings: WaysSettings
    features: Int[Tensor, " n"]
    choosing: TaskItems
    load_model: Callable[[str], PreTrainedModel]

    @property
    def base(self) -> PreTrainedModel:
        """The whole base model."""
        return self.experiment.upper.whole

    def make(self, name: str) -> MadeMethod:
        """One method by its name: one of `EDITS`, or that of a tuned model."""
        match name:
            case "features":
                return self._features()
            case "features_printed":
                value = EditValue("set", self.experiment.settings.amplify, self.experiment.other)
                method, *controls = (self._edited(features, value, 1.0) for features in (self.features, *self._like))
                return MadeMethod(name, f"features {value.name}", method, controls)
            case "steering":
                return self._steering()
            case "neurons":
                return self._neurons()
            case _:
                return MadeMethod(name, f"{name}, tuned weights", UneditedModel(self.load_model(name)))

    def predicted(
        self, methods: Sequence[EditingMethod], requests: Requests
    ) -> tuple[Bool[Tensor, "variants items"], Int[Tensor, "variants items"]]:
        """Which items are right, and what was predicted, by the unedited base first; methods are of one kind."""
        edits = [method.edits[0] for method in methods if isinstance(method, EditedModel)]
        others = [method for method in methods if not isinstance(method, EditedModel)]
        assert not edits or not others, "methods of one kind are scored together"
        if edits:
            values = self.experiment.score(requests, edits)
        else:
            values = score_methods(requests, self.base, others, batch_size=self.experiment.settings.batch_size)
        metric = self.experiment.metric
        return correctness(values, requests, metric), predictions(values, requests, metric)

    # -------------------------------------------------------------- features

    @cached_property
    def _activity(self) -> MeasuredActivity:
        return self.experiment.activity(self.choosing.requests, [self._tuned_mean])

    @property
    def _tuned_mean(self) -> EditValue:
        return EditValue("tuned_mean", 0.0, self.experiment.other)

    @cached_property
    def _like(self) -> Int[Tensor, "draws n"]:
        """Features as active as those selected."""
        own, experiment = self._activity.own, self.experiment
        draws, seed = self.settings.controls, experiment.seed
        return activity_matched(self.features, own.density, own.contribution, experiment.alive, draws, seed).features

    def _edited(self, features: Int[Tensor, " n"], value: EditValue, strength: float) -> EditedModel:
        experiment = self.experiment
        edit = experiment.edit(PlannedEdit(experiment.model, value, "increase"), features, self._activity)
        if isinstance(edit.value, Tensor):
            edit = edit.of(features, strength * edit.value)
        reading, error = experiment.settings.reading, experiment.settings.error
        return EditedModel(
            self.base, experiment.lineup, experiment.crosscoder, experiment.model, (edit,), reading, error
        )

    def _features(self) -> MadeMethod:
        def make(strength: float, draws: int) -> list[EditingMethod]:
            sets = self.features, *self._like[:draws]
            return [self._edited(features, self._tuned_mean, strength) for features in sets]

        title = f"features set to {{:g}} x {self.experiment.other}'s mean active value"
        return self._chosen("features", title, self.settings.strengths, make, MATCHED)

    # -------------------------------------------------------------- steering, neurons

    def _steering(self) -> MadeMethod:
        experiment, lineup = self.experiment, self.experiment.lineup
        ends = final_prompt_activations(self._critical, lineup, batch_size=experiment.settings.batch_size)
        there, here = (ends[:, lineup.names.index(name)] for name in (experiment.other, experiment.model))
        vector = (there - here).mean(dim=0)

        def make(strength: float, draws: int) -> list[EditingMethod]:
            random = vector.norm() * random_directions(len(vector), draws, experiment.seed)
            positions = experiment.settings.positions
            return [SteeredModel(self.base, lineup.layers, strength * one, positions) for one in (vector, *random)]

        title = "steering by {:g} x the mean difference"
        return self._chosen("steering", title, self.settings.strengths, make, "random directions")

    def _neurons(self) -> MadeMethod:
        experiment, width = self.experiment, neurons_per_block(self.base)
        models = self.base, self.load_model(experiment.other)
        here, there = (
            prompt_end_states(UneditedModel(model), self._critical, batch_size=experiment.settings.batch_size).neurons
            for model in models
        )
        base, count = NeuronStatistics.of(here), here.shape[1]
        shift, every = base.shift(there), torch.ones(count, dtype=torch.bool)

        def make(wanted: float, draws: int) -> list[EditingMethod]:
            chosen = set_to_means(most_moved(shift, int(wanted), every), there)
            edits = chosen, *random_neuron_edits(chosen, base, width, draws, experiment.seed)
            return [NeuronEditedModel(self.base, edit, experiment.settings.positions) for edit in edits]

        counts = sorted({max(1, round(share * count)) for share in self.settings.neuron_shares})
        title = f"{{:,.0f}} of {count:,} MLP neurons set to {experiment.other}'s mean"
        return self._chosen("neurons", title, counts, make, MATCHED)

    # -------------------------------------------------------------- choosing

    @cached_property
    def _critical(self) -> Requests:
        return self.choosing.only(self.choosing.critical)

    def _chosen(self, name: str, title: str, values: Sequence[float], make: Maker, kind: ControlName) -> MadeMethod:
        """The method made with the value of largest lead over its random edits, the first of equals."""
        tried = self._tried(values, [make(value, self.settings.tried_controls) for value in values])
        best = max(tried, key=lambda one: one[1] - one[2])[0]
        method, *controls = make(best, self.settings.controls)
        return MadeMethod(name, title.format(best), method, controls, kind, tried)

    def _tried(self, values: Sequence[float], methods: Sequence[Sequence[EditingMethod]]) -> tuple[Tried, ...]:
        """Gains on the choosing half, tasks counting alike: of the method made with each value, and of random edits."""
        right, _ = self.predicted([one for made in methods for one in made], self.choosing.requests)
        tasks = [self.choosing.of_task(task) for task in range(len(self.choosing.tasks))]
        shares = torch.stack([right[:, items].double().mean(dim=1) for items in tasks]).mean(dim=0)
        gains = (shares[1:] - shares[0]).view(len(values), -1)
        return tuple(zip(values, gains[:, 0].tolist(), gains[:, 1:].mean(dim=1).tolist(), strict=True))


def method_names(tuned: Sequence[str], target: str) -> tuple[str, ...]:
    """The edits, then the tuned models, that whose behaviour it is last. ValueError for a model with an edit's name."""
    if taken := [name for name in tuned if name in EDITS]:
        raise ValueError(f"a tuned model is called {taken[0]}, as one of the ways to edit the base; rename the model")
    return (*EDITS, *(name for name in tuned if name != target), target)
