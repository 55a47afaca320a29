"""Which neurons move: by hand, beside chance by enumeration, beside random edits as large."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from featdiff.intervention.neuron_edits import (
    JaccardNull,
    NeuronEdit,
    NeuronStatistics,
    jaccard,
    most_moved,
    random_neuron_edits,
    set_to_means,
)


def test_a_shift_is_in_the_standard_deviations_of_the_base() -> None:
    base = torch.tensor([[0.0, 1.0, 5.0], [2.0, 1.0, 5.0]])
    spread = NeuronStatistics.of(base)
    assert spread.mean.tolist() == [1.0, 1.0, 5.0]
    shift = spread.shift(torch.tensor([[3.0, 1.0, 4.0], [3.0, 1.0, 4.0]]))
    assert shift[0].item() == pytest.approx(2 / 2**0.5) and shift[1] == 0 and shift[2] < -1e5


def test_one_item_has_no_spread() -> None:
    with pytest.raises(ValueError, match="read on 1 items"):
        NeuronStatistics.of(torch.zeros(1, 3))


def test_the_neurons_moved_most_are_those_of_largest_shift_among_those_allowed() -> None:
    shift, every = torch.tensor([0.1, -3.0, 2.0, 0.0, 2.0]), torch.ones(5, dtype=torch.bool)
    assert most_moved(shift, 2, every).tolist() == [1, 2]
    assert most_moved(shift, 2, torch.arange(5) > 2).tolist() == [3, 4]
    assert most_moved(shift, 9, torch.arange(5) > 3).tolist() == [4]


def test_the_overlap_of_a_set_with_itself_is_1_and_with_a_disjoint_one_0() -> None:
    one = torch.tensor([1, 4, 6])
    assert jaccard(one, one) == 1 and jaccard(one, torch.tensor([0, 2])) == 0
    assert jaccard(one, torch.tensor([4, 6, 7])) == 2 / 4


@pytest.mark.parametrize(("neurons", "size"), [(6, 2), (7, 4), (5, 5), (8, 1)])
def test_chance_is_that_of_all_pairs_of_sets(neurons: int, size: int) -> None:
    first = set(range(size))
    found = np.array(
        [len(first & set(other)) / len(first | set(other)) for other in combinations(range(neurons), size)]
    )
    chance = JaccardNull(neurons, size)
    assert chance.mean == pytest.approx(found.mean())
    for overlap in np.unique(found):
        assert chance.p(overlap) == pytest.approx((found >= overlap - 1e-12).mean())
    assert (found <= chance.high(0.95) + 1e-12).mean() >= 0.975


def planted() -> tuple[Tensor, NeuronStatistics]:
    values = torch.randn(200, 3 * 50, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.5, 2, 50).repeat(3)
    return values, NeuronStatistics.of(values)


def test_random_neurons_lie_in_the_same_blocks_and_move_as_far() -> None:
    _, base = planted()
    neurons = torch.tensor([3, 7, 60, 61, 62])
    chosen = NeuronEdit(neurons, base.mean[neurons] + torch.tensor([1.0, -2.0, 3.0, 4.0, 5.0]) * base.std[neurons])
    drawn = random_neuron_edits(chosen, base, 50, draws=8, seed=1)
    assert len(drawn) == 8 and len({tuple(one.neurons.tolist()) for one in drawn}) > 1
    for one in drawn:
        assert sorted((one.neurons // 50).tolist()) == [0, 0, 1, 1, 1]
        assert not set(one.neurons.tolist()) & set(neurons.tolist())
        far = ((one.values - base.mean[one.neurons]) / base.std[one.neurons]).tolist()
        assert sorted(far[:2]) == pytest.approx([-2, 1], abs=1e-4)
        assert sorted(far[2:]) == pytest.approx([3, 4, 5], abs=1e-4)
        like = [abs(float(base.std[a] / base.std[neurons[:2]].mean()) - 1) for a in one.neurons[:2]]
        assert max(like) < 1.5
    again = random_neuron_edits(chosen, base, 50, draws=8, seed=1)
    assert all(torch.equal(a.values, b.values) for a, b in zip(drawn, again, strict=True))


def test_a_planted_neuron_is_the_one_that_moves_and_is_set_to_the_tuned_mean() -> None:
    values, base = planted()
    tuned = values.clone()
    tuned[:, 77] += 3.0
    found = most_moved(base.shift(tuned), 1, torch.ones(150, dtype=torch.bool))
    assert found.tolist() == [77]
    assert set_to_means(found, tuned).values.item() == pytest.approx(float(tuned[:, 77].mean()), rel=1e-5)
