"""Effects on generated answers, by hand: a few items, a few repetitions, a few controls."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from featdiff.intervention.edits import Edit
from featdiff.intervention.effect_records import AccuracyRecord, ControlRecord
from featdiff.intervention.effects import Effect, ItemSets
from featdiff.intervention.generation import Generated, answer_form, measure_generated_effect

ZERO = Edit(torch.tensor([1, 2]), 0.0)
OPTIONS = {"resamples": 500, "confidence": 0.95, "seed": 0}


def made(right: Tensor, found: bool = True, length: int = 5) -> Generated:
    return Generated(right.bool(), torch.full(right.shape, found), torch.full(right.shape, length))


def everywhere(value: int, items: int = 40, repeats: int = 3) -> Tensor:
    return torch.full((items, repeats), value)


def measured(before: Tensor, after: Tensor, controls: list[Tensor], edit: Edit = ZERO) -> Effect:
    half = torch.arange(len(before) // 2)
    sets = ItemSets(half, torch.arange(0), half)
    return measure_generated_effect(
        "m", "rl", edit, made(before), made(after), [made(one) for one in controls], sets, **OPTIONS
    )


def test_accuracy_is_over_all_repetitions_of_the_items_of_a_set() -> None:
    before, after = torch.tensor([[1, 1], [1, 0], [0, 0], [0, 1]]), torch.tensor([[0, 1], [0, 0], [1, 0], [0, 1]])
    effect = measured(before, after, [before, torch.zeros(4, 2)])
    critical, whole = effect.sets["critical"], effect.sets["all"]
    assert (critical.n, critical.before, critical.after) == (2, 0.75, 0.25)
    assert (whole.n, whole.before, whole.after) == (4, 0.5, 0.375)
    assert critical.change.value == -0.5 and whole.change.value == -0.125
    assert critical.controls.tolist() == [0, -0.75] and whole.controls.tolist() == [0, -0.5]
    assert (whole.flips.lost, whole.flips.gained) == (2, 1)
    assert effect.sets["mirror"].n == 0 and effect.sets["mirror"].before is None
    assert effect.sets["held_out"].change == critical.change


def test_with_few_controls_the_largest_effect_is_underpowered_and_with_many_supported() -> None:
    few, many = ([everywhere(1)] * draws for draws in (5, 40))
    assert measured(everywhere(1), everywhere(0), few).headline.p == pytest.approx(1 / 6)
    assert measured(everywhere(1), everywhere(0), few).headline.verdict == "underpowered"
    assert measured(everywhere(1), everywhere(0), many).headline.verdict == "supported"
    raised = measured(everywhere(0), everywhere(1), [everywhere(0)] * 40)
    assert raised.headline.verdict == "opposite", "zeroing was to lower"
    assert measured(everywhere(0), everywhere(1), [everywhere(0)] * 40, replace(ZERO, value=3.0)).headline.p < 0.05


def test_what_random_features_do_as_well_is_not_supported() -> None:
    effect = measured(everywhere(1, 200), everywhere(0, 200), [everywhere(0, 200)] * 40)
    assert effect.headline.verdict == "not distinguishable from random features" and effect.headline.p == 1


def test_the_entry_of_the_summary_is_that_of_every_effect() -> None:
    entry = measured(everywhere(1), everywhere(0), [everywhere(1)] * 5).record()
    assert entry.control == ControlRecord(5, 0.0, [0.0, 0.0])
    assert entry.sets["mirror"] == AccuracyRecord(None, None, 0, [-1.0, 1.0])
    assert (entry.task, entry.edit, entry.features) == ("m", "zero", 2)


def test_the_form_of_answers_stands_beside_that_under_random_features() -> None:
    before, after = made(everywhere(0), True, 4), made(everywhere(0), False, 9)
    control = [made(everywhere(0), True, 6), made(everywhere(0), False, 4)]
    form = asdict(answer_form(before, after, control, **OPTIONS))
    assert form["answer_format"] == {
        "before": 1.0,
        "after": 0.0,
        "n": 40,
        "interval": [-1.0, -1.0],
        "control": {"draws": 2, "mean": -0.5, "interval": [-1.0, 0.0]},
    }
    assert form["answer_length"]["interval"] == [5.0, 5.0]
    assert form["answer_length"]["control"] == {"draws": 2, "mean": 1.0, "interval": [0.0, 2.0]}


def test_an_effect_without_controls_is_refused() -> None:
    with pytest.raises(ValueError, match="generated_controls"):
        measured(everywhere(1), everywhere(0), [])
