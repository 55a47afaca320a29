import pytest
import torch

from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU
from featdiff.selection.scores import NOTHING, branch_score, select_above_share, split_held_out, swap_score, task_score


def reader_of_one_direction(scale: tuple[float, ...]) -> Crosscoder:
    """Feature 0 sums the first normalised coordinate of all models; feature 1 reads that of rl alone."""
    crosscoder = Crosscoder(models=("base", "sft", "rl"), d_model=2, features=2, sparsity=ReLU(weight=2.0))
    with torch.no_grad():
        crosscoder.W_enc.zero_()
        crosscoder.W_enc[:, 0, 0] = 1.0
        crosscoder.W_enc[2, 0, 1] = 1.0
        crosscoder.scale.copy_(torch.tensor(scale))
    return crosscoder


def test_swapping_takes_away_exactly_what_the_tuned_model_adds() -> None:
    crosscoder = reader_of_one_direction((1.0, 1.0, 1.0))
    residuals = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [4.0, 0.0]]])
    # Joint: 1 + 1 + 4 = 6 and 4; with the base's 1 in the place of 4: 3 and 1.
    assert swap_score(crosscoder, residuals, "rl", "base").tolist() == [[3.0, 3.0]]


def test_the_branch_score_reads_each_model_by_itself() -> None:
    crosscoder = reader_of_one_direction((1.0, 1.0, 1.0))
    tuned, base = torch.tensor([[4.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert branch_score(crosscoder, tuned, base, "rl", "base").tolist() == [[3.0, 4.0]]


def test_a_model_that_only_scales_its_residual_stream_has_no_swap_score() -> None:
    crosscoder = reader_of_one_direction((0.5, 1.0, 2.0))
    base = torch.randn(7, 2)
    residuals = torch.stack([base, torch.randn(7, 2), 4.0 * base], dim=1)
    assert swap_score(crosscoder, residuals, "rl", "base").abs().max() == 0


def test_swapping_leaves_the_callers_activations_alone() -> None:
    residuals = torch.randn(3, 3, 2)
    before = residuals.clone()
    swap_score(reader_of_one_direction((1.0, 2.0, 3.0)), residuals, "rl", "base")
    assert torch.equal(residuals, before)


def test_a_branch_reads_a_third_of_what_three_models_read_together() -> None:
    crosscoder = reader_of_one_direction((1.0, 1.0, 1.0))
    shared = torch.tensor([2.0, 0.0])
    joint = crosscoder.encode(shared.expand(1, 3, 2))[0, 0]
    branch = crosscoder.encode_branch(shared[None], "rl")[0, 0]
    assert (branch / joint).item() == pytest.approx(1 / 3)


def test_a_task_scores_the_mean_over_its_items_and_zero_without_items() -> None:
    assert task_score(torch.tensor([[1.0, -2.0], [3.0, 0.0]])).tolist() == [2.0, -1.0]
    assert task_score(torch.zeros(0, 3)).tolist() == [0.0, 0.0, 0.0]


def test_features_above_a_fifth_of_the_tasks_maximum_are_kept_and_intersected() -> None:
    score = torch.tensor([[10.0, 2.0, 2.1, -9.0], [1.0, 0.5, 0.3, 0.0]])
    selection = select_above_share(score, ("a", "b"), threshold=0.2)
    # Task a: above 2.0, so 2.0 itself is out. Task b: above 0.2.
    assert selection.selected.tolist() == [[True, False, True, False], [True, True, True, False]]
    assert selection.chosen.tolist() == [0, 2]
    assert selection.rule == "intersection"
    assert selection.per_task == {"a": 2, "b": 3}
    assert selection.in_at_least == (3, 2)


def test_overlaps_are_jaccard_and_the_share_of_the_smaller_set() -> None:
    selection = select_above_share(torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]), ("a", "b"))
    assert selection.overlap.flatten().tolist() == pytest.approx([1, 2 / 3, 2 / 3, 1])
    assert selection.overlap_coefficient.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_an_empty_intersection_falls_back_to_the_largest_number_of_tasks_and_says_so() -> None:
    score = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    selection = select_above_share(score, ("a", "b", "c"))
    assert selection.rule == "2 of 3"
    assert selection.chosen.tolist() == [0, 2]


def test_fewer_tasks_need_agree_until_the_wanted_number_of_features_is_reached() -> None:
    score = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    found = [select_above_share(score, ("a", "b", "c"), at_least=n) for n in (1, 2, 3, 9)]
    assert [selection.chosen.tolist() for selection in found] == [[0], [0, 1], [0, 1, 2], [0, 1, 2]]
    assert [selection.rule for selection in found] == ["intersection", "2 of 3", "1 of 3", "1 of 3"]


def test_a_task_without_critical_items_keeps_nothing_and_does_not_hide_the_others() -> None:
    selection = select_above_share(torch.stack([torch.tensor([3.0, 1.0, 0.1]), torch.zeros(3)]), ("full", "empty"))
    assert selection.rule == "1 of 2"
    assert selection.chosen.tolist() == [0, 1]
    assert selection.overlap.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_an_empty_selection_is_a_result_that_says_so() -> None:
    selection = select_above_share(torch.tensor([[-1.0, -2.0], [0.0, 0.0]]), ("a", "b"))
    assert selection.chosen.tolist() == []
    assert selection.rule == NOTHING


def test_dead_features_are_never_chosen_and_set_no_maximum() -> None:
    alive = torch.tensor([False, True, True])
    selection = select_above_share(torch.tensor([[100.0, 1.0, 0.1]]), ("a",), alive=alive)
    assert selection.chosen.tolist() == [1]


def test_rescaling_features_and_decoders_alike_changes_nothing_once_the_gauge_is_fixed() -> None:
    crosscoder = Crosscoder(models=("base", "rl"), d_model=8, features=32, sparsity=ReLU(weight=2.0), seed=1)
    residuals = torch.randn(40, 2, 8, generator=torch.Generator().manual_seed(0))
    chosen = []
    factors = torch.rand(32, generator=torch.Generator().manual_seed(5)) * 9 + 0.1
    for factor in (torch.ones(32), factors):
        with torch.no_grad():
            crosscoder.W_enc.mul_(factor)
            crosscoder.b_enc.mul_(factor)
            crosscoder.W_dec.div_(factor[:, None, None])
        crosscoder.canonicalise()
        score = task_score(swap_score(crosscoder, residuals, "rl", "base"))
        chosen.append(select_above_share(score[None], ("a",)).chosen.tolist())
    assert chosen[0] == chosen[1] != []


def test_scores_that_are_not_finite_or_lack_a_name_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        select_above_share(torch.tensor([[float("nan"), 1.0]]), ("a",))
    with pytest.raises(ValueError, match="one distinct name per task"):
        select_above_share(torch.zeros(2, 3), ("a",))


@pytest.mark.parametrize(("items", "held_out"), [(0, 0), (1, 0), (2, 1), (3, 2), (10, 5), (11, 6)])
def test_halves_part_the_critical_items_without_loss(items: int, held_out: int) -> None:
    critical = torch.arange(items) * 3
    parted = split_held_out(critical, 0.5, seed=7)
    assert len(parted.held_out) == held_out
    assert sorted([*parted.choosing.tolist(), *parted.held_out.tolist()]) == critical.tolist()


def test_halves_are_the_same_for_one_seed_and_differ_between_seeds() -> None:
    critical = torch.arange(50)
    assert torch.equal(split_held_out(critical, 0.5, 1).held_out, split_held_out(critical, 0.5, 1).held_out)
    assert not torch.equal(split_held_out(critical, 0.5, 1).held_out, split_held_out(critical, 0.5, 2).held_out)
