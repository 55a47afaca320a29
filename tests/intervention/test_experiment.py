"""Experiments on small random models, without a study."""

import pytest
import torch
from tiny_lineup import random_crosscoder, random_requests, tiny_lineup, tiny_model

from featdiff.config.intervention import InterventionSettings
from featdiff.intervention.edit_values import EditValue
from featdiff.intervention.edits import Edit
from featdiff.intervention.effects import ItemSets
from featdiff.intervention.experiment import KINDS, Experiment, PlannedEdit, sampled
from featdiff.intervention.scoring import correctness, score
from featdiff.models.partial_model import UpperModel

REQUESTS = random_requests()
TEST = PlannedEdit("rl", EditValue("zero", 0.0, "base"), "decrease")
CHOSEN = torch.tensor([1, 4, 7])


def experiment(**draws: int) -> Experiment:
    lineup, crosscoder = tiny_lineup(), random_crosscoder()
    settings = InterventionSettings.model_validate({"controls": 3, "draws": draws, "bootstrap": 50})
    redrawn = torch.arange(12).reshape(3, 4)
    return Experiment(
        crosscoder,
        lineup,
        UpperModel(tiny_model(seed=2), lineup.layers),
        torch.ones(crosscoder.features, dtype=torch.bool),
        "rl",
        "base",
        settings,
        redrawn={"both right": redrawn, "both wrong": redrawn},
    )


def test_every_kind_of_control_is_drawn_and_is_as_large_as_the_edit() -> None:
    one = experiment(**{"uniform alive": 0})
    found = one.activity(REQUESTS, [TEST.value])
    controls = one.controls(TEST, CHOSEN, REQUESTS, found)
    assert set(controls) == set(KINDS) - {"uniform alive"}
    assert all(len(edits) == 3 and all(len(edit.features) == 3 for edit in edits) for edits in controls.values())
    assert [edit.features.tolist() for edit in controls["both right"]] == [[0, 1, 2], [4, 5, 6], [8, 9, 10]]
    assert all(edit.along is not None for edit in controls["random directions"])


def test_answers_are_those_of_the_score() -> None:
    one = experiment()
    answers = one.answers(TEST, REQUESTS, CHOSEN, one.activity(REQUESTS, [TEST.value]))
    wanted = score(REQUESTS, one.lineup, one.upper, one.crosscoder, "rl", [Edit(CHOSEN, 0.0)])
    right = correctness(wanted, REQUESTS)
    assert torch.equal(answers.before, right[0]) and torch.equal(answers.edited.after, right[1])
    assert answers.edited.controls.shape == (3, 9) and answers.choices.shape == (2, 9)


def test_held_out_items_are_edited_by_the_features_of_the_other_half() -> None:
    one, none = experiment(), torch.zeros(0, dtype=torch.long)
    sets = ItemSets(torch.arange(6), none, torch.tensor([1, 3]))
    effect, answers = one.effect(TEST, REQUESTS, CHOSEN, none, sets, task="toy")
    assert effect.headline.change.value == 0.0  # no feature was selected without the held-out items
    assert effect.sets["all"].after == pytest.approx(float(answers.edited.after.double().mean()))
    unseen, _ = one.effect(TEST, REQUESTS, CHOSEN, None, sets, task="toy")
    same, _ = one.effect(TEST, REQUESTS, CHOSEN, CHOSEN, sets, task="toy")
    assert unseen.headline.after == same.headline.after


def test_sampled_items_are_in_order_and_follow_the_seed() -> None:
    assert sampled(5, None, 0).tolist() == sampled(5, 9, 0).tolist() == [0, 1, 2, 3, 4]
    some = sampled(100, 10, 1)
    assert len(some) == 10 and (some.diff() > 0).all() and torch.equal(some, sampled(100, 10, 1))
