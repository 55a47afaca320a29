"""Effect of an edit on generated answers: accuracy, share that hold an answer, and length.

No feature was chosen on items whose answers are generated, so all their critical items are held out. An item is right
as often as its repetitions are, and critical if more than half are right in the tuned model but not in the base.
Sampled answers change when they are asked for again: so they do under the edits of random features beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.evaluation.repeated_sampling import accuracy_change, item_flips, paired_change
from featdiff.intervention.edits import Edit
from featdiff.intervention.effect_records import AnswerForm, FormRecord
from featdiff.intervention.effects import (
    Effect,
    ItemSetName,
    ItemSets,
    SetEffect,
    assess_set,
    control_interval,
    control_record,
    empty_set_effect,
)
from featdiff.stats import Direction


@dataclass(frozen=True, eq=False)
class Generated:
    """A task's generated answers under one edit, or none."""

    right: Bool[Tensor, "items repeats"]
    found: Bool[Tensor, "items repeats"]
    """Whether an answer can be extracted from the text."""
    length: Int[Tensor, "items repeats"]
    """Tokens of the text."""


def measure_generated_effect(
    task: str,
    model: str,
    edit: Edit,
    before: Generated,
    after: Generated,
    controls: Sequence[Generated],
    sets: ItemSets,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Effect:
    """Measure the effect of an edit on accuracy over all repetitions.

    Arguments:
        task, model: names of the task and of the edited model.
        edit: the edit; its expected direction decides the one-sided p-values.
        before, after: answers without and under the edit.
        controls: answers under the same edit of random features.
        sets: critical, mirror and held-out items, by index.
        resamples, seed: of the bootstrap behind each interval.
        confidence: coverage of the intervals; 1 - confidence is the level of the tests.

    With few controls no empirical p is small, and the verdict is underpowered. Raises ValueError without any.
    """
    if not controls:
        raise ValueError("an effect without control sets proves nothing; draw some (intervention.generated_controls)")
    everything = before.right.new_ones(len(before.right)).nonzero().flatten()
    parts: dict[ItemSetName, Int[Tensor, " _"]] = {
        "critical": sets.critical,
        "mirror": sets.mirror,
        "all": everything,
        "held_out": sets.held_out,
    }
    rights = [one.right for one in controls]
    effects: dict[ItemSetName, SetEffect] = {
        name: _set_effect(
            before.right[items],
            after.right[items],
            [right[items] for right in rights],
            edit.expected,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        )
        for name, items in parts.items()
    }
    return Effect(task, model, edit.name, len(edit.features), edit.expected, effects)


def answer_form(
    before: Generated, after: Generated, controls: Sequence[Generated], *, resamples: int, confidence: float, seed: int
) -> AnswerForm:
    """Measure the share of texts that hold an answer and their length in tokens, over all items and repetitions.

    Each before and after the edit, with the interval of its change over items, and the change under the controls.
    """

    def record(old: Int[Tensor, "items repeats"], new: Tensor, others: list[Tensor]) -> FormRecord:
        change = paired_change(old, new, resamples=resamples, confidence=confidence, seed=seed)
        control = control_record(control_interval(_changes(old, others), confidence), len(others))
        means = float(old.double().mean()), float(new.double().mean())
        return FormRecord(*means, len(old), [change.low, change.high], control)

    found = [one.found.long() for one in (before, after, *controls)]
    length = [one.length for one in (before, after, *controls)]
    return AnswerForm(record(found[0], found[1], found[2:]), record(length[0], length[1], length[2:]))


def _set_effect(
    before: Bool[Tensor, "items repeats"],
    after: Bool[Tensor, "items repeats"],
    controls: Sequence[Bool[Tensor, "items repeats"]],
    expected: Direction,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> SetEffect:
    change = accuracy_change(before, after, resamples=resamples, confidence=confidence, seed=seed)
    if not len(before):
        return empty_set_effect(change)
    accuracies = int(before.sum()) / before.numel(), int(after.sum()) / after.numel()
    return assess_set(change, accuracies, item_flips(before, after), _changes(before, controls), {}, expected)


def _changes(before: Tensor, controls: Sequence[Tensor]) -> Float[np.ndarray, " draws"]:
    """Mean change in each draw; counted before division, so that equal changes are equal floats: ties decide the p."""
    return np.array([int(one.sum()) - int(before.sum()) for one in controls]) / before.numel()
