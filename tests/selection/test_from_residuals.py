"""Selection from residual streams: a planted feature is found, and every rule by hand."""

import pytest
import torch
from torch import Tensor

from featdiff.config.intervention import SelectionSettings
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU
from featdiff.selection.from_residuals import (
    choose,
    firing_rate,
    item_differences,
    mean_rate,
    retained,
    select,
    task_differences,
)

MODELS, FEATURES = ("base", "rl"), 6
ALIVE = torch.ones(FEATURES, dtype=torch.bool)


def axes() -> Crosscoder:
    """Feature k reads axis k, half from each model, and has no threshold."""
    crosscoder = Crosscoder(MODELS, FEATURES, FEATURES, ReLU(weight=0.0))
    with torch.no_grad():
        crosscoder.W_enc.copy_(torch.eye(FEATURES).expand(2, -1, -1) / 2)
        crosscoder.W_dec.copy_(torch.eye(FEATURES)[:, None].expand(-1, 2, -1) / 2)
        crosscoder.b_enc.zero_()
    return crosscoder


def residuals(rl: list[list[float]]) -> Tensor:
    """A base that is zero everywhere, and the tuned model."""
    tuned = torch.tensor(rl, dtype=torch.float32)
    return torch.stack([torch.zeros_like(tuned), tuned], dim=1)


ONE = residuals([[4, 0, 0, 0, 2, 0], [4, 0, 0, 0, 2, 0], [0, 9, 0, 0, 0, 0]])
OTHER = residuals([[2, 0, 0, 3, 0, 0], [2, 0, 0, 3, 0, 0]])
CRITICAL = {"one": torch.tensor([0, 1]), "other": torch.tensor([0, 1])}


def test_features_that_all_tasks_retain_on_critical_items_are_selected() -> None:
    found = select(axes(), {"one": ONE, "other": OTHER}, CRITICAL, ALIVE, SelectionSettings(model="rl"))
    assert found.chosen.tolist() == [0] and found.rule == "intersection"
    assert found.per_task == {"one": 2, "other": 2}
    assert found.score.tolist() == [[2, 0, 0, 0, 1, 0], [1, 0, 0, 1.5, 0, 0]]


def test_both_scores_of_a_base_at_zero_are_the_code_and_the_branch() -> None:
    swap, branch = (item_differences(axes(), OTHER, "rl", score=score) for score in ("swap", "branch"))
    assert swap[0].tolist() == branch[0].tolist() == [1, 0, 0, 1.5, 0, 0]


def test_the_rate_counts_items_on_which_a_feature_fires() -> None:
    assert firing_rate(axes(), ONE).tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0, 2 / 3, 0])
    assert firing_rate(axes(), ONE[:0]).tolist() == [0] * FEATURES


def test_every_rule_retains_what_it_says() -> None:
    differences = torch.tensor([[4.0, 0.7, 1.0, 0, 0, 0], [4.0, 0.7, -1.0, 0, 0, 0]])
    settings = SelectionSettings(top=1)
    kept = {rule: retained(differences, ALIVE, settings, rule).nonzero().flatten().tolist() for rule in RULES}
    assert kept == {"rel_max": [0], "top_n": [0], "t_bh": [0, 1]}


RULES = ("rel_max", "top_n", "t_bh")


def test_the_choosing_half_leaves_the_held_out_items_alone() -> None:
    tasks = [
        task_differences(axes(), values, CRITICAL[name], name, tuned="rl", held_out=0.5)
        for name, values in (("one", ONE), ("other", OTHER))
    ]
    assert [one.critical for one in tasks] == [2, 2]
    assert [len(one.by("swap", without_held_out=True)) for one in tasks] == [1, 1]
    assert choose(tasks, ALIVE, SelectionSettings(), without_held_out=True).chosen.tolist() == [0]
    assert mean_rate(tasks)[0] == pytest.approx((2 / 3 + 1) / 2)


def test_tasks_of_residuals_and_of_critical_items_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="give the same tasks"):
        select(axes(), {"one": ONE}, CRITICAL, ALIVE)
