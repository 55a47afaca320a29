"""Measure editing methods on items that none was chosen on, against random edits as large.

For each: reliability (the selecting tasks), generalization (unseen tasks), side effects (on text, on the form and the
histogram of answers), and the MLP neurons that it moves, with their overlap between methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from featdiff.analyses.editing_methods.result import (
    ABOVE,
    Chance,
    Change,
    Changes,
    ChoosingItems,
    Comparison,
    Difference,
    EditingMethods,
    Method,
    NeuronOverlap,
    TextEffect,
)
from featdiff.files import load, save
from featdiff.intervention.editing_methods import EDITS, MadeMethod, MethodMaker, TaskItems
from featdiff.intervention.effect_records import BeforeAfter
from featdiff.intervention.effects import control_interval
from featdiff.intervention.neuron_edits import JaccardNull, NeuronStatistics, jaccard, most_moved
from featdiff.intervention.pooled_effects import PooledEffect, TaskChange, pooled_effect
from featdiff.intervention.side_effects import TextShift, text_shift
from featdiff.intervention.steering import (
    EditingMethod,
    PromptEndStates,
    UneditedModel,
    prompt_end_states,
    text_logits,
)
from featdiff.models.neurons import neurons_per_block
from featdiff.progress import Progress
from featdiff.run.splice import Part
from featdiff.stats import Draws, Flips, stratified_bootstrap

BELOW = ("neurons",)
"""Edits that act below the hook point as well."""
FEWEST = 2
"""Critical items of a half from which the spread of a neuron can be told."""
NOTHING_TO_COMPARE = (
    "no features were selected on the choosing half, or fewer than two critical items lie in one of the halves; "
    "so no way could be made or measured"
)

Shifts = Mapping[str, Float[Tensor, " neurons"]]


def compare(
    maker: MethodMaker,
    names: Sequence[str],
    held_out: TaskItems,
    unseen: TaskItems | None,
    text: Sequence[Part],
    folder: Path,
) -> EditingMethods:
    """Make and measure every method.

    Arguments:
        maker: makes them on the choosing half.
        names: of the methods; a tuned model's own name is that of its weights.
        held_out: the other half of the selecting tasks.
        unseen: items of tasks that took no part in the selection.
        text: on which side effects are measured.
        folder: gets `<name>.json` and `<name>.safetensors` (how far each neuron is moved); what is there is taken over.
    """
    choosing = maker.choosing
    about = ChoosingItems(choosing.tasks, len(choosing.task_of), int(choosing.critical.sum()))
    target, features = maker.experiment.other, tuple(maker.features.tolist())
    if min(about.critical, int(held_out.critical.sum())) < FEWEST or not features:
        return EditingMethods(target, features, about, note=NOTHING_TO_COMPARE)
    measure = Measurement(maker, held_out, unseen, text)
    missing = [name for name in names if not (folder / f"{name}.json").is_file()]
    with Progress("ways", total=len(missing), unit="way") as progress:
        for name in missing:
            measure.write(maker.make(name), folder)
            progress.advance()
    shifts = {name: load_file(folder / f"{name}.safetensors") for name in names}
    below = maker.experiment.lineup.layers * neurons_per_block(maker.base)
    share, confidence = maker.settings.moved_share, maker.experiment.settings.confidence
    return EditingMethods(
        target=target,
        features=features,
        choosing=about,
        methods=tuple(load(Method, folder / f"{name}.json") for name in names),
        overlaps=tuple(overlaps(shifts, target, below, share, confidence)),
    )


@dataclass(frozen=True, eq=False)
class Measurement:
    """What every method is measured on, and the unedited base there."""

    maker: MethodMaker
    held_out: TaskItems
    unseen: TaskItems | None
    text: Sequence[Part]

    def write(self, made: MadeMethod, folder: Path) -> None:
        """Measure one method; its result is written last, so that what lies there is whole."""
        examined = [made.method, *made.controls[: self.maker.settings.examined]]
        ends = [self._prompt_ends(method) for method in examined]
        own, *controls = [shift.record() for shift in self._text_shifts(examined)]
        result = Method(
            name=made.name,
            title=made.title,
            edit=made.edits,
            control=made.kind if made.controls else None,
            tried=made.tried,
            reliability=self._changes(made, self.held_out),
            generalization=None if self.unseen is None else self._changes(made, self.unseen),
            side_effects=TextEffect(**vars(own), control_kl=tuple(one.kl for one in controls)),
            answer_format=BeforeAfter(_share(self._base_ends.in_form), _share(ends[0].in_form)),
        )
        save_file(self._neuron_shifts(ends), folder / f"{made.name}.safetensors")
        save(result, folder / f"{made.name}.json")

    @cached_property
    def _base(self) -> UneditedModel:
        return UneditedModel(self.maker.base)

    @cached_property
    def _base_ends(self) -> PromptEndStates:
        return self._prompt_ends(self._base)

    def _prompt_ends(self, method: EditingMethod) -> PromptEndStates:
        critical, batch_size = self.held_out.only(self.held_out.critical), self.maker.experiment.settings.batch_size
        return prompt_end_states(method, critical, batch_size=batch_size)

    def _neuron_shifts(self, ends: Sequence[PromptEndStates]) -> dict[str, Float[Tensor, " neurons"]]:
        """How far a method moves each neuron: on all items, on every second one and the rest; and its controls."""
        here, there = self._base_ends.neurons, ends[0].neurons
        base = NeuronStatistics.of(here)
        first, second = (
            NeuronStatistics(here[start::2].mean(dim=0), base.std).shift(there[start::2]) for start in (0, 1)
        )
        controls = {f"control{number}": base.shift(one.neurons) for number, one in enumerate(ends[1:])}
        return {"shift": base.shift(there), "half0": first, "half1": second, **controls}

    def _changes(self, made: MadeMethod, items: TaskItems) -> Changes:
        """Changes of accuracy by set of items, and how far the histogram of predictions moves."""
        if isinstance(made.method, UneditedModel):
            right = torch.stack([items.correct[name] for name in (items.base, made.name)])
            predicted = torch.stack([items.prediction[name] for name in (items.base, made.name)])
        else:
            right, predicted = self.maker.predicted([made.method, *made.controls], items.requests)
        return Changes(
            critical=self._change(made, items, items.critical, right),
            mirror=self._change(made, items, items.mirror, right),
            all=self._change(made, items, torch.ones_like(items.critical), right),
            histogram_shift=_histogram_shift(items, predicted[0], predicted[1]),
        )

    def _change(
        self, made: MadeMethod, items: TaskItems, wanted: Bool[Tensor, " items"], right: Bool[Tensor, "variants items"]
    ) -> Change:
        """One set: the mean change over tasks, and that under each control."""
        settings, seed = self.maker.experiment.settings, self.maker.experiment.seed
        confidence, resamples = settings.confidence, settings.bootstrap
        tasks = [wanted & items.of_task(task) for task in range(len(items.tasks))]
        flips = [Flips.of(right[0, part], right[1, part]) for part in tasks]
        if not made.controls:
            change = stratified_bootstrap(flips, resamples=resamples, confidence=confidence, seed=seed)
            value = None if change.value != change.value else change.value
            return Change(sum(one.n for one in flips), value, (change.low, change.high), None)
        parts = [
            TaskChange(one, {made.kind: _control_changes(right[:, part])})
            for one, part in zip(flips, tasks, strict=True)
        ]
        found = pooled_effect(parts, "increase", resamples=resamples, confidence=confidence, seed=seed)
        record = found.record()
        beyond = _beyond(found, made, confidence) if record.n else None
        compared = Comparison(record.flips, record.controls, record.p, record.verdict, beyond)
        return Change(record.n, record.change, (found.change.low, found.change.high), compared)

    def _text_shifts(self, methods: Sequence[EditingMethod]) -> list[TextShift]:
        """What each method does to neutral text."""
        totals = [TextShift(0.0, 0.0, 0.0, 0)] * len(methods)
        for part in self.text:
            plain = text_logits(self._base, part.input_ids, part.position_ids)
            for number, method in enumerate(methods):
                moved = text_logits(method, part.input_ids, part.position_ids)
                totals[number] += text_shift(plain, moved, part.labels.to(plain.device))
        return totals


def _beyond(found: PooledEffect, made: MadeMethod, confidence: float) -> Difference:
    control, value = control_interval(found.controls[made.kind], confidence), found.change.value
    return Difference(value - control.value, (value - control.high, value - control.low))


def _control_changes(right: Bool[Tensor, "variants some"]) -> Draws:
    """The change of accuracy under each control; 0 where there are no items."""
    shares = right.double().sum(dim=1) / max(1, right.shape[1])
    return (shares[2:] - shares[0]).numpy()


def _histogram_shift(items: TaskItems, before: Int[Tensor, " items"], after: Int[Tensor, " items"]) -> float:
    """Total variation between how often each choice is predicted before and after; mean over tasks."""
    choices, shifts = int(items.requests.choice_counts.max()), list[float]()
    for here in (items.of_task(task) for task in range(len(items.tasks))):
        if here.any():
            counts = [
                torch.bincount(one[here], minlength=choices).double() / int(here.sum()) for one in (before, after)
            ]
            shifts.append(float((counts[0] - counts[1]).abs().sum() / 2))
    return sum(shifts) / len(shifts)


def _share(values: Bool[Tensor, " some"]) -> float:
    return float(values.double().mean())


# ------------------------------------------------------------------ neurons


def overlaps(
    shifts: Mapping[str, Shifts], target: str, below: int, share: float, confidence: float
) -> list[NeuronOverlap]:
    """Whether methods move the same MLP neurons: sets of those that each moves most, their overlaps, and chance.

    Above the hook point for all methods, whose edits there begin; in all blocks for those that act everywhere.

    Arguments:
        shifts: by method, how far it moves each neuron ("shift"), on two halves of the items, and its controls.
        target: the method whose neurons those of all controls are compared with.
        below: number of neurons up to the hook point.
        share: of the neurons that count as moved.
        confidence: coverage of the interval of chance.
    """
    neurons = len(next(iter(shifts.values()))["shift"])
    above, every = torch.arange(neurons) >= below, torch.ones(neurons, dtype=torch.bool)
    whole = {name: one for name, one in shifts.items() if name not in EDITS or name in BELOW}
    found = [_overlap(ABOVE, shifts, target, above, share, confidence)] if above.any() else []
    return [*found, _overlap("all blocks", whole, target, every, share, confidence)]


def _overlap(
    where: str,
    shifts: Mapping[str, Shifts],
    target: str,
    among: Bool[Tensor, " neurons"],
    share: float,
    confidence: float,
) -> NeuronOverlap:
    size = max(1, round(share * int(among.sum())))
    chance = JaccardNull(int(among.sum()), size)
    moved = {
        name: {which: most_moved(shift, size, among) for which, shift in one.items()} for name, one in shifts.items()
    }
    sets = [one["shift"] for one in moved.values()]
    table = tuple(tuple(jaccard(one, other) for other in sets) for one in sets)
    controls = [[one for which, one in by.items() if which.startswith("control")] for by in moved.values()]
    return NeuronOverlap(
        where=where,
        methods=tuple(shifts),
        neurons=chance.neurons,
        size=size,
        jaccard=table,
        p=tuple(tuple(chance.p(value) for value in row) for row in table),
        chance=Chance(chance.mean, chance.high(confidence)),
        halves=tuple(jaccard(one["half0"], one["half1"]) for one in moved.values()),
        target=target,
        controls=tuple(tuple(jaccard(one, moved[target]["shift"]) for one in draws) for draws in controls),
    )
