"""Attribution scores against hand-made numbers (method.md T1 and T10) and the laws of a share."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featdiff.attribution import Attribution, model_attribution_score, normalized_relative_norm
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU


def crosscoder_with(W_dec: torch.Tensor, models: tuple[str, ...], scale: list[float] | None = None) -> Crosscoder:
    crosscoder = Crosscoder(
        models=models, d_model=W_dec.shape[2], features=W_dec.shape[0], sparsity=ReLU(weight=2.0), seed=0
    )
    with torch.no_grad():
        crosscoder.W_dec.copy_(W_dec)
        crosscoder.scale.copy_(torch.tensor(scale or [1.0] * len(models)))
    return crosscoder


@pytest.fixture
def three_models() -> Crosscoder:
    """Four features of three models: base only, sft : rl = 3 : 1 at a right angle, shared by all, and dead."""
    W_dec = torch.zeros(4, 3, 2)
    W_dec[0, 0] = torch.tensor([2.0, 0.0])
    W_dec[1, 1] = torch.tensor([3.0, 0.0])
    W_dec[1, 2] = torch.tensor([0.0, -1.0])
    W_dec[2, :] = torch.tensor([1.0, 1.0])
    return crosscoder_with(W_dec, ("base", "sft", "rl"))


def test_scores_of_hand_set_decoders_are_the_shares_of_their_l1_norms() -> None:
    W_dec = torch.tensor([[[1.0, -1.0], [3.0, 3.0]], [[0.0, 0.0], [0.5, 0.0]]])

    torch.testing.assert_close(model_attribution_score(W_dec), torch.tensor([[0.25, 0.75], [0.0, 1.0]]))


def test_an_axis_vector_against_an_equally_long_flat_one_has_nrn_8_9_in_l1_and_1_2_in_l2() -> None:
    axis = torch.zeros(1, 64)
    axis[0, 5] = 1.0
    flat = torch.full((1, 64), 1 / 8)

    assert normalized_relative_norm(axis, flat).item() == pytest.approx(8 / 9, abs=1e-6)
    assert normalized_relative_norm(axis, flat, p=2).item() == pytest.approx(0.5, abs=1e-6)


@given(seed=st.integers(0, 2**31), models=st.integers(2, 6), p=st.sampled_from((1, 2)))
def test_scores_of_all_models_sum_to_one(seed: int, models: int, p: Literal[1, 2]) -> None:
    W_dec = torch.randn(5, models, 7, generator=torch.Generator().manual_seed(seed))

    torch.testing.assert_close(model_attribution_score(W_dec, p).sum(dim=1), torch.ones(5), atol=1e-6, rtol=0)


@given(seed=st.integers(0, 2**31), gain=st.floats(1e-3, 1e3))
def test_scores_do_not_depend_on_the_gauge_of_a_feature(seed: int, gain: float) -> None:
    W_dec = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(seed))

    torch.testing.assert_close(model_attribution_score(gain * W_dec), model_attribution_score(W_dec))


def test_a_feature_that_no_model_decodes_has_no_score() -> None:
    assert model_attribution_score(torch.zeros(1, 3, 2)).isnan().all()


def test_with_two_models_the_attribution_of_the_tuned_one_is_the_nrn() -> None:
    W_dec = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(1))
    attribution = Attribution.of(crosscoder_with(W_dec, ("base", "rl")))

    torch.testing.assert_close(attribution["rl"], normalized_relative_norm(W_dec[:, 0], W_dec[:, 1]))


def test_attribution_of_planted_owners_is_read_by_name(three_models: Crosscoder) -> None:
    attribution = Attribution.of(three_models)

    torch.testing.assert_close(attribution["base"][:3], torch.tensor([1.0, 0.0, 1 / 3]))
    torch.testing.assert_close(attribution["sft"][:3], torch.tensor([0.0, 0.75, 1 / 3]))
    assert attribution.alive.tolist() == [True, True, True, False]


def test_l2_scores_lie_beside_l1_scores() -> None:
    W_dec = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    attribution = Attribution.of(crosscoder_with(W_dec, ("base", "sft")))

    assert attribution["sft"].item() == pytest.approx(1.4 / 2.4)
    assert attribution.mas_l2[0, 1].item() == pytest.approx(0.5)


def test_cosine_is_that_of_the_directions_and_undefined_for_an_absent_one(three_models: Crosscoder) -> None:
    cosine = Attribution.of(three_models).cosine

    assert cosine[1, 1, 2].item() == pytest.approx(0.0, abs=1e-7)
    assert cosine[2, 0, 2].item() == pytest.approx(1.0)
    assert math.isnan(cosine[0, 0, 1].item())


def test_a_rotated_feature_keeps_half_its_norm_and_has_the_cosine_of_the_angle() -> None:
    angle = 0.7
    W_dec = torch.tensor([[[1.0, 0.0], [math.cos(angle), math.sin(angle)]]])
    attribution = Attribution.of(crosscoder_with(W_dec, ("base", "rl")), p=2)

    assert attribution["rl"].item() == pytest.approx(0.5)
    assert attribution.cosine[0, 0, 1].item() == pytest.approx(math.cos(angle))


def test_raw_space_weighs_each_model_by_its_scale() -> None:
    crosscoder = crosscoder_with(torch.ones(1, 2, 4), ("base", "sft"), scale=[1.0, 3.0])

    assert Attribution.of(crosscoder)["sft"].item() == pytest.approx(0.5)
    assert Attribution.of(crosscoder, space="raw")["sft"].item() == pytest.approx(0.75)


def test_a_feature_that_fires_too_rarely_is_not_alive(three_models: Crosscoder) -> None:
    density = torch.tensor([0.5, 1e-6, 1e-5, 0.5])

    assert Attribution.of(three_models, density=density).alive.tolist() == [True, False, True, False]


def test_the_density_of_the_crosscoder_counts_where_none_is_given(three_models: Crosscoder) -> None:
    three_models.density = torch.tensor([0.5, 0.0, 0.5, 0.0])

    assert Attribution.of(three_models).alive.tolist() == [True, False, True, False]
    assert Attribution.of(three_models, density=torch.tensor([0.0, 0.5, 0.5, 0.5])).alive.tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_a_decoder_below_one_percent_of_the_median_norm_is_not_alive() -> None:
    W_dec = torch.ones(5, 2, 3)
    W_dec[4] *= 0.009

    assert Attribution.of(crosscoder_with(W_dec, ("base", "sft"))).alive.tolist() == [True] * 4 + [False]


def test_density_that_was_not_measured_is_not_a_number(three_models: Crosscoder) -> None:
    assert Attribution.of(three_models).density.isnan().all()


def test_top_ranks_alive_features_only_and_breaks_ties_by_index() -> None:
    W_dec = torch.ones(5, 2, 1)
    W_dec[:, 1, 0] = torch.tensor([9.0, 3.0, 1.0, 3.0, 4.0])
    density = torch.tensor([0.0, 0.1, 0.1, 0.1, 0.1])
    attribution = Attribution.of(crosscoder_with(W_dec, ("base", "sft")), density=density)

    assert attribution.top("sft", k=3).tolist() == [4, 1, 3]
    assert attribution.top("sft", k=50).tolist() == [4, 1, 3, 2]


def test_tails_count_alive_features_beyond_each_cut_and_how_many_are_alive() -> None:
    W_dec = torch.ones(5, 2, 1)
    W_dec[:, 1, 0] = torch.tensor([99.0, 99.0, 5.0, 1.0, 0.01])
    density = torch.tensor([0.0, 0.1, 0.1, 0.1, 0.1])
    attribution = Attribution.of(crosscoder_with(W_dec, ("base", "sft")), density=density)

    assert attribution.tails("sft") == {"0.8": 2, "0.9": 1, "alive": 4}
    assert attribution.tails("base", cuts=(0.95,)) == {"0.95": 1, "alive": 4}


def test_a_model_that_the_crosscoder_does_not_hold_is_named_with_those_it_holds(three_models: Crosscoder) -> None:
    with pytest.raises(ValueError, match=r"no model 'grpo'.*base, sft, rl"):
        Attribution.of(three_models)["grpo"]


def test_scoring_leaves_the_crosscoder_as_it_was(three_models: Crosscoder) -> None:
    before = three_models.W_dec.detach().clone()
    Attribution.of(three_models, space="raw")

    assert torch.equal(three_models.W_dec, before)
