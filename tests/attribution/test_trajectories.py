"""Dynamics of a hand-made joint crosscoder over the base and three checkpoints."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featdiff.attribution import Attribution, Trajectory
from featdiff.attribution.scores import decoder_cosines, model_attribution_score
from featdiff.attribution.trajectories import common, follow, joint_scores, places_climbed

CHECKPOINTS = ("sft-1", "sft-2", "sft-3")


def attribution_of(norms: torch.Tensor, alive: torch.Tensor | None = None) -> Attribution:
    """Attribution of decoders along one axis with the given norms [features models]."""
    W_dec = norms.unsqueeze(-1)
    mas = model_attribution_score(W_dec)
    return Attribution(
        models=("base", *CHECKPOINTS)[: norms.shape[1]],
        space="normalised",
        mas=mas,
        mas_l2=mas,
        cosine=decoder_cosines(W_dec),
        density=torch.full((len(norms),), torch.nan),
        alive=torch.ones(len(norms), dtype=torch.bool) if alive is None else alive,
    )


def followed(norms: torch.Tensor, alive: torch.Tensor | None = None, top: int = 2) -> Trajectory:
    scores, index = joint_scores(attribution_of(norms, alive), CHECKPOINTS), torch.arange(len(norms))
    return follow([scores], CHECKPOINTS, lambda _, __: index, torch.ones_like(scores.alive), "joint", top=top)


# Specificity per checkpoint, with base norm 1: c / (1 + c).
#   sft-1 ranks features 0 1 2 3, sft-2 ranks 1 0 2 3, sft-3 ranks 3 1 2 0
NORMS = torch.tensor([[1.0, 9.0, 4.0, 0.1], [1.0, 4.0, 9.0, 4.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.1, 0.5, 9.0]])


def test_specificity_is_the_two_model_score_of_a_checkpoint_against_the_base() -> None:
    specificity = followed(NORMS).specificity

    torch.testing.assert_close(specificity[0], torch.tensor([0.9, 0.8, 0.5, 0.1 / 1.1]))
    torch.testing.assert_close(specificity[2], torch.tensor([0.1 / 1.1, 0.8, 0.5, 0.9]))


def test_overlap_is_the_shared_part_of_the_top_features() -> None:
    expected = torch.tensor([[1.0, 1.0, 0.5], [1.0, 1.0, 0.5], [0.5, 0.5, 1.0]])

    assert torch.equal(followed(NORMS).overlap, expected)


def test_chance_is_the_overlap_of_two_random_sets_of_the_same_size() -> None:
    assert followed(NORMS).chance == 0.5


def test_rank_shift_counts_places_climbed_and_is_blank_where_a_feature_leaves() -> None:
    expected = torch.tensor([[-1.0, 1.0], [-1.0, torch.nan]])

    torch.testing.assert_close(followed(NORMS).rank_shift, expected, equal_nan=True)


def test_ranked_features_come_best_first() -> None:
    assert followed(NORMS).ranked.tolist() == [[0, 1], [1, 0], [3, 1]]


def test_dead_features_are_never_ranked() -> None:
    alive = torch.tensor([False, True, True, True])

    assert followed(NORMS, alive).ranked.tolist() == [[1, 2], [1, 2], [3, 1]]


def test_a_feature_that_neither_base_nor_checkpoint_decodes_takes_no_part_there() -> None:
    norms = torch.tensor([[0.0, 0.0, 0.0, 5.0], [1.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]])

    assert followed(norms).ranked.tolist() == [[1, 2], [1, 2], [0, 1]]


def test_all_alive_features_are_ranked_where_there_are_fewer_than_the_top() -> None:
    result = followed(NORMS, top=50)

    assert result.ranked.shape == (3, 4)
    assert result.chance == 1.0
    assert (result.overlap == 1.0).all()


def test_checkpoints_that_do_not_change_give_full_overlap_and_no_shift() -> None:
    norms = torch.rand(20, 1, generator=torch.Generator().manual_seed(3)) * torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    norms[:, 0] = 1.0
    result = followed(norms, top=5)

    assert torch.equal(result.overlap, torch.ones(3, 3))
    assert torch.equal(result.rank_shift, torch.zeros(2, 5))


@given(seed=st.integers(0, 2**31), k=st.integers(1, 8))
def test_overlap_is_symmetric_and_agrees_with_sets(seed: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ranked = torch.stack([torch.randperm(10, generator=generator)[:k] for _ in range(3)])
    sets = [set(row.tolist()) for row in ranked]

    overlap = torch.tensor([[common(one, other, torch.arange(10)) for other in ranked] for one in ranked])
    torch.testing.assert_close(overlap, torch.tensor([[len(a & b) / k for b in sets] for a in sets]))


@given(seed=st.integers(0, 2**31), k=st.integers(1, 8))
def test_rank_shift_agrees_with_looking_each_feature_up(seed: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    now, later = (torch.randperm(10, generator=generator)[:k] for _ in range(2))
    looked_up = [j - later.tolist().index(f) if f in later.tolist() else torch.nan for j, f in enumerate(now.tolist())]

    torch.testing.assert_close(places_climbed(now, later), torch.tensor(looked_up).float(), equal_nan=True)


def test_one_checkpoint_has_no_dynamics() -> None:
    with pytest.raises(ValueError, match="at least two checkpoints, got sft-1"):
        joint_scores(attribution_of(NORMS), ["sft-1"])


def test_a_crosscoder_without_alive_features_has_no_dynamics() -> None:
    with pytest.raises(ValueError, match="no feature of the checkpoint crosscoder is alive"):
        followed(NORMS, torch.zeros(4, dtype=torch.bool))
