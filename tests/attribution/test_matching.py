"""Features of two crosscoders are paired by what they write (acceptance test T11), within bounded memory."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from largest_tensor import LargestTensor
from torch import Tensor

from featdiff.attribution.matching import Matching, match, match_codes, match_decoders, matched_jaccard
from featdiff.crosscoder.model import Crosscoder


def crosscoder(W_dec: Tensor, models: tuple[str, ...] = ("base", "tuned")) -> Crosscoder:
    made = Crosscoder(models, d_model=W_dec.shape[2], features=len(W_dec))
    with torch.no_grad():
        made.W_dec.copy_(W_dec)
    return made


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shuffled(W_dec: Tensor, noise: float, seed: int = 1) -> tuple[Tensor, Tensor]:
    """The rows in another order, each with noise of `noise` times its length, and where each row went."""
    went = torch.randperm(len(W_dec), generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(W_dec)
    other[went] = W_dec + noise * draw(*W_dec.shape, seed=seed + 1)
    return other, went


def planes(*degrees: float) -> Tensor:
    """Rows of one model in a plane, at these angles."""
    radians = torch.tensor([math.radians(degree) for degree in degrees])
    return torch.stack([radians.cos(), radians.sin()], dim=1)[:, None, :]


def test_a_planted_permutation_is_found_exactly() -> None:
    W_dec = draw(40, 2, 8)
    other, went = shuffled(W_dec, noise=0.0)
    matching = match(crosscoder(W_dec), crosscoder(other * torch.rand(40, 1, 1).add(0.1)))

    assert torch.equal(matching.partner, went)
    assert torch.equal(matching.pairs, torch.stack([torch.arange(40), went], dim=1))
    torch.testing.assert_close(matching.cosines, torch.ones(40))
    assert matching.curve == {"0.5": 1.0, "0.6": 1.0, "0.7": 1.0, "0.8": 1.0, "0.9": 1.0}
    assert matching.pw_mcc == pytest.approx(1)


@pytest.mark.parametrize("exact", [4096, 50], ids=["exact", "blocked"])
def test_with_noise_recall_falls_as_computed(exact: int) -> None:
    """A row w and w + noise of standard deviation s have cosine 1 / sqrt(1 + s^2), up to 1 / sqrt(width)."""
    W_dec = draw(300, 2, 200)
    levels = torch.linspace(0.1, 1.6, 300)
    went = torch.randperm(300, generator=torch.Generator().manual_seed(5))
    other = torch.empty_like(W_dec)
    other[went] = W_dec + levels[:, None, None] * draw(300, 2, 200, seed=7)
    matching = match_decoders(W_dec, other, acceptance=0.7, exact=exact, block=64)
    wanted = 1 / (1 + levels.square()).sqrt()

    assert torch.equal(matching.partner[matching.pairs[:, 0]], went[matching.pairs[:, 0]])
    for acceptance, share in matching.curve.items():
        assert share == pytest.approx(float((wanted > float(acceptance)).float().mean()), abs=0.05)
    assert len(matching.pairs) == round(300 * matching.curve["0.7"])


def test_only_the_common_features_are_matched() -> None:
    common = draw(12, 2, 64)
    one, other = torch.cat([common, draw(8, 2, 64, seed=1)]), torch.cat([draw(20, 2, 64, seed=2), common])
    matching = match(crosscoder(one), crosscoder(other))

    assert matching.pairs.tolist() == [[k, 20 + k] for k in range(12)]
    assert matching.share(0.7) == pytest.approx(2 * 12 / (20 + 32))


def test_a_crosscoder_matches_itself_feature_by_feature() -> None:
    W_dec = draw(70, 3, 16)
    for exact in (4096, 10):
        matching = match_decoders(W_dec, W_dec, exact=exact, block=16)
        assert torch.equal(matching.partner, torch.arange(70))


def test_unrelated_crosscoders_match_nowhere() -> None:
    for exact in (4096, 10):
        matching = match_decoders(draw(70, 2, 100), draw(90, 2, 100, seed=1), exact=exact, block=16)
        assert len(matching.pairs) == 0
        assert matching.partner.tolist() == [-1] * 70
        assert 0.1 < matching.pw_mcc < 0.35  # the largest of 80 cosines of standard deviation 1 / sqrt(200)


def test_an_opposite_direction_is_another_feature() -> None:
    matching = match_decoders(planes(0), -planes(0))
    assert len(matching.pairs) == 0
    assert matching.best_a.item() == pytest.approx(-1)


def test_the_sum_of_cosines_decides_and_weak_pairs_are_worth_nothing() -> None:
    """Angles by hand: nearest to nearest (0 with 10) would leave the second without a partner above the floor."""
    matching = match_decoders(planes(0, 40), planes(10, -50), acceptance=0.6)
    assert matching.pairs.tolist() == [[0, 1], [1, 0]]
    torch.testing.assert_close(matching.cosines, torch.tensor([50.0, 30.0]).deg2rad().cos())
    # By plain cosines two pairs below the floor (.42 + .42) would beat one above it and an opposite (.64 - 1).
    weak = match_decoders(planes(0, 115, 165, -115), planes(50, -65, 165, -115), acceptance=0.6)
    assert weak.pairs.tolist() == [[0, 0], [2, 2], [3, 3]]


def test_pw_mcc_is_the_mean_of_nearest_cosines_in_both_directions() -> None:
    """a at 0 and 20 degrees, b at 0: one feature of b is nearest to both of a's."""
    matching = match_decoders(planes(0, 20), planes(0))
    cosine = math.cos(math.radians(20))
    assert matching.best_a.tolist() == pytest.approx([1, cosine]) and matching.best_b.tolist() == pytest.approx([1])
    assert matching.pw_mcc == pytest.approx(((1 + cosine) / 2 + 1) / 2)
    assert matching.share(0.5) == pytest.approx(2 / 3)


def confusable(features: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two noisy readings of a dictionary with a third of its rows near to another, a third of them lost."""
    base = draw(features, 2, width, seed=seed)
    third = features // 3
    base[:third] = base[third : 2 * third] + 0.6 * draw(third, 2, width, seed=seed + 1)
    other, _ = shuffled(base, noise=0.45, seed=seed + 2)
    other[:third] = draw(third, 2, width, seed=seed + 4)
    return base, other


def test_blocked_and_exact_agree_on_a_confusable_dictionary() -> None:
    one, other = confusable(600, 48, seed=3)
    exact = match_decoders(one, other, exact=600)
    blocked = match_decoders(one, other, exact=40, block=128)

    assert 250 < len(exact.pairs) < 420
    assert torch.equal(exact.pairs, blocked.pairs)
    torch.testing.assert_close(exact.cosines, blocked.cosines, atol=1e-5, rtol=0)
    torch.testing.assert_close(exact.best_a, blocked.best_a, atol=1e-5, rtol=0)
    torch.testing.assert_close(exact.best_b, blocked.best_b, atol=1e-5, rtol=0)


def test_a_crowd_around_one_direction_is_matched_in_parts() -> None:
    """Rows that all have the same nearest settle almost nothing in a round; each still gets a partner of its own."""
    shared = draw(1, 1, 64)
    one = shared + 0.3 * draw(300, 1, 64, seed=1) * torch.linspace(0.5, 1.5, 300)[:, None, None]
    other = shared + 0.3 * draw(250, 1, 64, seed=2) * torch.linspace(0.5, 1.5, 250)[:, None, None]
    blocked = match_decoders(one, other, exact=60, block=64)

    assert len(blocked.assigned) == 250
    assert len(blocked.assigned[:, 0].unique()) == len(blocked.assigned[:, 1].unique()) == 250


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), exact=st.sampled_from((200, 20)))
def test_matching_backwards_gives_the_same_pairs(seed: int, exact: int) -> None:
    one, other = confusable(60, 24, seed)
    there = match_decoders(one, other[:50], exact=exact, block=17)
    back = match_decoders(other[:50], one, exact=exact, block=17).reversed()

    assert torch.equal(there.pairs, back.pairs)
    torch.testing.assert_close(there.cosines, back.cosines)
    assert there.pw_mcc == pytest.approx(back.pw_mcc) and there.curve == pytest.approx(back.curve)


def test_no_tensor_is_larger_than_the_decoder_a_tile_or_the_assignment() -> None:
    one = draw(1500, 2, 6)
    other, went = shuffled(one, noise=0.2)
    with LargestTensor() as seen:
        matching = match_decoders(one, other, exact=100, block=128)

    assert len(matching.pairs) > 1000
    assert (matching.partner[matching.pairs[:, 0]] == went[matching.pairs[:, 0]]).float().mean() > 0.8
    assert seen.largest <= max(one.numel(), 128 * 128, 100 * 100)  # and 1500 x 1500 is 115 times that


def test_models_are_laid_side_by_side_by_name() -> None:
    early, late = draw(6, 2, 5), draw(6, 2, 5)
    late[:, 1] = draw(6, 5, seed=9)
    one, other = crosscoder(early, ("base", "c1")), crosscoder(late, ("base", "c2"))

    assert match(one, other, models=("base",)).partner.tolist() == list(range(6))
    both = match(one, other, acceptance=0.1, models=("base", ("c1", "c2")))
    assert both.cosines.max() < 0.95
    with pytest.raises(ValueError, match="no model 'c1'"):
        match(one, other)
    swapped = crosscoder(early.flip(1), ("c1", "base"))
    assert match(one, swapped).partner.tolist() == list(range(6))


def test_features_that_write_nothing_or_are_not_alive_take_no_part() -> None:
    one, other = draw(5, 2, 8), draw(5, 2, 8)
    one[1] = 0
    alive = (torch.tensor([True, True, False, True, True]), torch.tensor([True, True, True, False, True]))
    matching = match(crosscoder(one), crosscoder(other), alive=alive)

    assert matching.partner.tolist() == [0, -1, -1, -1, 4]
    assert matching.best_a.isnan().tolist() == [False, True, True, False, False]
    assert matching.share(0.7) == pytest.approx(2 * 2 / (3 + 4))
    empty = match(crosscoder(one), crosscoder(other), alive=(torch.zeros(5, dtype=torch.bool), alive[1]))
    assert len(empty.pairs) == 0 and math.isnan(empty.pw_mcc)


def by_hand() -> Matching:
    """a's 0, 1, 2, 3 match b's 2, 0, 3 and nothing."""
    pairs = torch.tensor([[0, 2], [1, 0], [2, 3]])
    return Matching(0.7, 0.5, pairs, torch.tensor([0.9, 0.95, 0.8]), torch.rand(4), torch.rand(5))


def test_sets_are_carried_across_and_back() -> None:
    matching = by_hand()
    assert matching.carry(torch.tensor([3, 1, 0])).tolist() == [0, 2]
    assert matching.reversed().carry(torch.tensor([2, 4, 0])).tolist() == [0, 1]


def test_matched_jaccard_counts_a_feature_and_its_partner_once() -> None:
    matching = by_hand()
    # {0, 1, 3} is {2, 0, -} in b; with {0, 3, 4} it has 0 in common, of 3 + 3 - 1.
    assert matched_jaccard(matching, torch.tensor([0, 1, 3]), torch.tensor([0, 3, 4])) == pytest.approx(1 / 5)
    assert matched_jaccard(matching, torch.tensor([0, 1]), torch.tensor([2, 0])) == 1
    assert matched_jaccard(matching, torch.tensor([3]), torch.tensor([4])) == 0
    assert math.isnan(matched_jaccard(matching, torch.tensor([], dtype=torch.long), torch.tensor([], dtype=torch.long)))


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(ValueError, match="lies between 0 and 1"):
        match_decoders(planes(0), planes(0), acceptance=1.5)
    with pytest.raises(ValueError, match="d_model is 2 in one crosscoder and 3"):
        match(crosscoder(draw(4, 2, 2)), crosscoder(draw(4, 2, 3)))
    with pytest.raises(ValueError, match="kept above cosine 0\\.5"):
        match_decoders(planes(0), planes(0)).share(0.3)


def test_a_planted_permutation_comes_back_under_other_scales_offsets_and_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(400, 12, generator=generator)
    order = torch.randperm(12, generator=generator)
    other = 3.0 * codes[:, order] + 0.5 + 0.05 * torch.randn(400, 12, generator=generator)
    found = match_codes(codes, other)
    assert found.partner[order].tolist() == list(range(12))


def test_the_similarity_of_codes_is_the_correlation() -> None:
    a, b = torch.tensor([[0.0], [1.0], [2.0], [4.0]]), torch.tensor([[1.0], [0.0], [2.0], [3.0]])
    expected = torch.corrcoef(torch.cat([a, b], dim=1).T)[0, 1]
    found = match_codes(a, b, acceptance=0.5)
    assert torch.allclose(found.best_a[0], expected)
    assert torch.allclose(match_codes(a, -b, acceptance=0.5).best_a[0], -expected)


def test_constant_and_dead_codes_take_no_part() -> None:
    codes = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    codes[:, 1] = 0.3
    alive = (torch.tensor([True, True, True, False]), torch.ones(4, dtype=torch.bool))
    found = match_codes(codes, codes, alive=alive)
    assert found.pairs.tolist() == [[0, 0], [2, 2]]
    assert found.best_a.isnan().tolist() == [False, True, False, True]
