"""Selections on fewer tasks and on other items, by hand."""

import torch

from featdiff.config.intervention import SelectionSettings
from featdiff.selection.agreement import contrast_scores, redrawn_features, selected_elsewhere, without_each_task
from featdiff.selection.scores import select_above_share

ALIVE = torch.ones(4, dtype=torch.bool)
SCORE = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]])


def test_without_a_task_the_others_agree_on_more() -> None:
    selection = select_above_share(SCORE, ["a", "b", "c"])  # 0 and 2 are kept twice each
    assert selection.chosen.tolist() == [0, 2]
    found = without_each_task(selection, at_least=1)
    assert {task: one.chosen for task, one in found.items()} == {"a": [2], "b": [0, 1, 2], "c": [0]}
    assert found["b"].jaccard == 2 / 3 and found["a"].rule == "intersection"
    assert without_each_task(select_above_share(SCORE[:1], ["a"]), at_least=1) == {}


def test_redrawn_items_have_the_score_of_the_items_where_all_are_alike() -> None:
    scores = contrast_scores(torch.tensor([[2.0, 0, 0, 1.0]]).repeat(5, 1), critical=3, draws=4, seed=0)
    assert scores.items == 5
    torch.testing.assert_close(scores.redrawn, scores.score.expand(4, -1))
    assert redrawn_features([scores], ALIVE, 0.2)[:, :2].tolist() == [[0, 3]] * 4
    assert contrast_scores(torch.zeros(0, 4), critical=3, draws=2, seed=0).redrawn.tolist() == [[0] * 4] * 2


def test_a_selection_elsewhere_is_compared_with_that_on_critical_items() -> None:
    selection = select_above_share(SCORE[:2], ["a", "b"])
    there = contrast_scores(torch.tensor([[1.0, 0, 0, 1.0]]), critical=1, draws=2, seed=0)
    settings = SelectionSettings(null_draws=50)
    found = selected_elsewhere(selection, {"a": there, "b": there}, torch.ones(4), ALIVE, settings, seed=0)
    assert (found.items, found.chosen, found.rule) == (2, [0, 3], "intersection")
    assert found.shared.found == 1.0  # the one critical feature is among the two
