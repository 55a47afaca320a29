"""The ways to put the tuned model's behaviour into the base, made on the choosing half, each with random edits like it.

| name             | what is done to the base                                            | chosen             |
|------------------|---------------------------------------------------------------------|--------------------|
| features         | selected features set to multiples of the tuned model's mean        | the multiple       |
| features_printed | the same features set to one value, as the paper prints it          | nothing            |
| steering         | the mean difference at the tap, tuned less base, added              | its strength       |
| neurons          | the MLP neurons that differ most set to the tuned model's mean      | how many           |
| the models' own  | another tuned model; and the one whose behaviour it is, as reference | nothing            |

Chosen is what raises accuracy most beyond random edits as large, on all items of the choosing half. Where the base is
wrong more often than by chance, or on critical items alone, damage raises accuracy too, and the largest strength would
always win.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.analyses.editing_methods.items import TaskItems, items_of
from featdiff.config.study import BASE
from featdiff.evaluation.batches import final_prompt_activations
from featdiff.evaluation.results import Requests
from featdiff.intervention.activity import Activity
from featdiff.intervention.controls import activity_matched, random_directions
from featdiff.intervention.edit_values import EditValue
from featdiff.intervention.edited_model import EditedModel
from featdiff.intervention.effects import MATCHED, ControlName
from featdiff.intervention.neuron_edits import (
    NeuronEdit,
    NeuronStatistics,
    most_moved,
    random_neuron_edits,
    set_to_means,
)
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
from featdiff.models.partial_model import UpperModel
from featdiff.run.intervention_context import Bench, Measured, measured, scores
from featdiff.run.models import load_whole
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of, crosscoder_and_lineup

Maker = Callable[[float, int], list[EditingMethod]]
"""From what can be chosen, and a number of draws, to the way and so many random edits as large."""
EDITS = ("features", "features_printed", "steering", "neurons")


@dataclass(frozen=True, eq=False)
class Made:
    """One way, ready to run, and random edits as large as it."""

    name: str
    title: str
    way: EditingMethod
    controls: Sequence[EditingMethod] = ()
    kind: ControlName = MATCHED
    """What the controls are."""
    tried: tuple[tuple[float, float, float], ...] = ()
    """Every value of what could be chosen, with the gain on the choosing half, and that of random edits as large."""


@dataclass(frozen=True, eq=False)
class Workshop:
    """All that ways are made from: the base, whole and up to the tap, the features, and the choosing half."""

    plan: Plan
    bench: Bench
    base: PreTrainedModel
    features: Int[Tensor, " n"]
    """Selected on the choosing half."""
    choosing: TaskItems

    @staticmethod
    def of(plan: Plan, features: Sequence[int]) -> "Workshop":
        """Load the models and the items."""
        crosscoder, lineup = crosscoder_and_lineup(plan)
        base = load_whole(plan, plan.paths[BASE])
        upper = UpperModel(base, lineup.layers)
        bench = Bench(plan, crosscoder, lineup, upper, attribution_of(plan, plan.joint), BASE)
        choosing = items_of(plan, lineup, "choosing")
        assert choosing is not None, "features were selected, so some task took part"
        return Workshop(plan, bench, base, torch.tensor(features, dtype=torch.long), choosing)

    @property
    def tuned(self) -> str:
        """The model whose behaviour is put into the base."""
        return self.plan.study.selection.model

    def make(self, name: str) -> Made:
        """One way by its name: one of `EDITS`, or that of a tuned model."""
        match name:
            case "features":
                return self._features()
            case "features_printed":
                level = EditValue("set", self.plan.study.intervention.amplify, self.tuned)
                way, *controls = (self._edited(features, level, 1.0) for features in (self.features, *self._like))
                return Made(name, f"features {level.name}", way, controls)
            case "steering":
                return self._steering()
            case "neurons":
                return self._neurons()
        return Made(name, f"{name}, tuned weights", UneditedModel(load_whole(self.plan, self.plan.paths[name])))

    def answers(self, ways: Sequence[EditingMethod], requests: Requests) -> Float[Tensor, "variants requests"]:
        """Log-likelihoods by the base, and by each of some ways of one kind."""
        edits = [way.edits[0] for way in ways if isinstance(way, EditedModel)]
        if edits:
            assert len(edits) == len(ways), "ways of one kind are scored together"
            return scores(self.bench, requests, edits)
        others = [way for way in ways if not isinstance(way, EditedModel)]
        return score_methods(requests, self.base, others, batch_size=self.batch_size)

    def predicted(self, ways: Sequence[EditingMethod], requests: Requests) -> tuple[Tensor, Tensor]:
        """Who is right, and what was predicted: `[variants items]` each, the unedited base first."""
        values, metric = self.answers(ways, requests), self.plan.study.evaluation.metric
        return correctness(values, requests, metric), predictions(values, requests, metric)

    @property
    def batch_size(self) -> int:
        """Sequences per forward pass."""
        return self.plan.study.intervention.batch_size

    # -------------------------------------------------------------- features

    @cached_property
    def _activity(self) -> Measured:
        level = EditValue("tuned_mean", 0.0, self.tuned)
        return measured(self.bench, self.choosing.requests, [level])

    @cached_property
    def _like(self) -> Int[Tensor, "draws n"]:
        """Features as active as those selected."""
        own: Activity = self._activity.own
        alive, draws, seed = self.bench.attribution.alive, self.plan.study.ways.controls, self.plan.study.seed
        return activity_matched(self.features, own.density, own.contribution, alive, draws, seed).features

    def _edited(self, features: Int[Tensor, " n"], level: EditValue, strength: float) -> EditedModel:
        settings, bench = self.plan.study.intervention, self.bench
        found = self._activity
        edit = level.edit(features, found.own, found.given, settings.positions, "increase")
        if isinstance(edit.value, Tensor):
            edit = edit.of(features, strength * edit.value)
        return EditedModel(self.base, bench.lineup, bench.crosscoder, BASE, (edit,), settings.reading, settings.error)

    def _features(self) -> Made:
        level = EditValue("tuned_mean", 0.0, self.tuned)

        def make(strength: float, draws: int) -> list[EditingMethod]:
            return [self._edited(features, level, strength) for features in (self.features, *self._like[:draws])]

        title = f"features set to {{:g}} x {self.tuned}'s mean active value"
        return self._chosen("features", title, self.plan.study.ways.strengths, make, MATCHED)

    # -------------------------------------------------------------- steering, neurons

    def _steering(self) -> Made:
        lineup, seed = self.bench.lineup, self.plan.study.seed
        ends = final_prompt_activations(self._critical, lineup, batch_size=self.batch_size)
        there, here = (ends[:, lineup.names.index(name)] for name in (self.tuned, BASE))
        vector = (there - here).mean(dim=0)

        def make(strength: float, draws: int) -> list[EditingMethod]:
            random = vector.norm() * random_directions(len(vector), draws, seed)
            return [self._steered(strength * one) for one in (vector, *random)]

        title = "steering by {:g} x the mean difference"
        return self._chosen("steering", title, self.plan.study.ways.strengths, make, "random directions")

    def _steered(self, vector: Float[Tensor, " d_model"]) -> SteeredModel:
        return SteeredModel(self.base, self.bench.lineup.layers, vector, self.plan.study.intervention.positions)

    def _neurons(self) -> Made:
        width, seed = neurons_per_block(self.base), self.plan.study.seed
        here = prompt_end_states(UneditedModel(self.base), self._critical, batch_size=self.batch_size).neurons
        whole = UneditedModel(load_whole(self.plan, self.plan.paths[self.tuned]))
        there = prompt_end_states(whole, self._critical, batch_size=self.batch_size).neurons
        base, count = NeuronStatistics.of(here), here.shape[1]
        shift, everyone = base.shift(there), torch.ones(count, dtype=torch.bool)

        def make(wanted: float, draws: int) -> list[EditingMethod]:
            chosen = set_to_means(most_moved(shift, int(wanted), everyone), there)
            return [self._set(one) for one in (chosen, *random_neuron_edits(chosen, base, width, draws, seed))]

        counts = sorted({max(1, round(share * count)) for share in self.plan.study.ways.neuron_shares})
        title = f"{{:,.0f}} of {count:,} MLP neurons set to {self.tuned}'s mean"
        return self._chosen("neurons", title, counts, make, MATCHED)

    def _set(self, setting: NeuronEdit) -> NeuronEditedModel:
        return NeuronEditedModel(self.base, setting, self.plan.study.intervention.positions)

    # -------------------------------------------------------------- choosing

    @cached_property
    def _critical(self) -> Requests:
        return self.choosing.only(self.choosing.critical)

    def _chosen(self, name: str, title: str, values: Sequence[float], make: Maker, kind: ControlName) -> Made:
        """The way made with the value of largest lead over its random edits, the first of equals."""
        settings = self.plan.study.ways
        tried = self._tried(values, [make(value, settings.tried_controls) for value in values])
        best = max(tried, key=lambda one: one[1] - one[2])[0]
        way, *controls = make(best, settings.controls)
        return Made(name, title.format(best), way, controls, kind, tried)

    def _tried(
        self, values: Sequence[float], ways: Sequence[list[EditingMethod]]
    ) -> tuple[tuple[float, float, float], ...]:
        """Gains on the choosing half, tasks counting alike: of the way made with each value, and of random edits."""
        right, _ = self.predicted([one for made in ways for one in made], self.choosing.requests)
        tasks = [self.choosing.of_task(task) for task in range(len(self.choosing.tasks))]
        shares = torch.stack([right[:, items].double().mean(dim=1) for items in tasks]).mean(dim=0)
        gains = (shares[1:] - shares[0]).view(len(values), -1)
        return tuple(zip(values, gains[:, 0].tolist(), gains[:, 1:].mean(dim=1).tolist(), strict=True))


def way_names(plan: Plan) -> tuple[str, ...]:
    """The edits, then the tuned models, that whose behaviour it is last. ValueError for a model with an edit's name."""
    if taken := [name for name in plan.tuned if name in EDITS]:
        raise ValueError(f"a tuned model is called {taken[0]}, as one of the ways to edit the base; rename the model")
    target = plan.study.selection.model
    return (*EDITS, *(name for name in plan.tuned if name != target), target)
