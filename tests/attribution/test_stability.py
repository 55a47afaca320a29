"""Features of one seed looked for in others: planted permutations, with noise and with impostors."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t
from torch import Generator, Tensor

from featdiff.attribution import Attribution
from featdiff.attribution.stability import ScoredCrosscoder, SeedSpread, seed_interval, stability_of
from featdiff.crosscoder import Crosscoder

MODELS = ("base", "rl")


def scored(W_dec: Tensor, seed: int, models: tuple[str, ...] = MODELS) -> ScoredCrosscoder:
    crosscoder = Crosscoder(models, W_dec.shape[2], len(W_dec), seed=seed)
    crosscoder.W_dec.data.copy_(W_dec)
    return ScoredCrosscoder(crosscoder, Attribution.of(crosscoder))


def rows(features: int, seed: int, width: int = 32) -> Tensor:
    return torch.randn(features, 2, width, generator=Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), features=st.integers(2, 40))
def test_a_planted_permutation_is_undone_exactly_and_every_feature_is_stable(seed: int, features: int) -> None:
    truth = rows(features, seed)
    orders = [torch.randperm(features, generator=Generator().manual_seed(seed + s)) for s in (1, 2)]
    found = stability_of([scored(truth, 0), *(scored(truth[order], s) for s, order in enumerate(orders, 1))])
    assert torch.equal(found.partner, torch.stack([order.argsort() for order in orders]))
    assert found.stable.all() and found.matched_in.tolist() == [2] * features
    torch.testing.assert_close(found.mas[0], found.mas[2])
    assert found.pw_mcc == pytest.approx((1.0, 1.0), abs=1e-5)


def test_a_feature_is_stable_in_two_other_seeds_not_in_one() -> None:
    """Of three features the first is in all seeds, the second in one other, the third in none."""
    axes = torch.eye(8)

    def seed(*directions: int, number: int) -> ScoredCrosscoder:
        return scored(torch.stack([axes[list(directions)]] * 2, dim=1), number)

    found = stability_of([seed(0, 1, 2, number=0), seed(1, 0, 3, number=1), seed(4, 5, 0, number=2)])
    assert found.matched_in.tolist() == [2, 1, 0] and found.stable.tolist() == [True, False, False]
    assert found.partner.tolist() == [[1, 0, -1], [2, -1, -1]]
    assert found.curve == {cut: pytest.approx(1 / 3) for cut in ("0.5", "0.6", "0.7", "0.8", "0.9")}
    assert found.seeds == (0, 1, 2) and found.stable_tails == {"base": {"0.8": 0, "0.9": 0}, "rl": {"0.8": 0, "0.9": 0}}


def test_the_curve_falls_with_the_cosine_that_is_asked_for() -> None:
    """Both other seeds hold the feature turned by an angle of cosine 0.75."""
    turned = torch.zeros(1, 2, 4)
    turned[..., 0], turned[..., 1] = 0.75, math.sqrt(1 - 0.75**2)
    straight = torch.zeros(1, 2, 4)
    straight[..., 0] = 1.0
    found = stability_of([scored(straight, 0), scored(turned, 1), scored(turned, 2)], acceptance=0.8)
    assert found.curve == {"0.5": 1.0, "0.6": 1.0, "0.7": 1.0, "0.8": 0.0, "0.9": 0.0}
    assert not found.stable.any()  # by the acceptance that was asked for


def test_partners_of_unrelated_dictionaries_are_none() -> None:
    found = stability_of([scored(rows(50, s), s) for s in (0, 1, 2)])
    assert found.matched_in.tolist() == [0] * 50 and set(found.curve.values()) == {0.0}


def test_tails_are_counted_under_every_seed_with_their_spread() -> None:
    axes = torch.eye(4)
    norms = [[9.0, 9.0, 1.0, 1.0], [9.0, 1.0, 1.0, 1.0], [9.0, 9.0, 9.0, 1.0]]
    seeds = [
        scored(torch.stack([axes, torch.tensor(norm)[:, None] * axes], dim=1), seed) for seed, norm in enumerate(norms)
    ]
    found = stability_of(seeds, (0.8,))
    assert found.tails["rl"]["0.8"] == SeedSpread((2.0, 1.0, 3.0)) and found.tails["rl"]["alive"].values == (4.0,) * 3
    assert found.tails["rl"]["0.8"].mean == 2.0 and found.tails["rl"]["0.8"].deviation == 1.0
    assert found.stable_tails == {"base": {"0.8": 0}, "rl": {"0.8": 2}}  # both are found again, if weaker
    mean, deviation = found.spread("rl")
    scores = [0.9, 0.5, 0.9]  # of the second feature, under each seed; its direction is the same in all
    assert mean[1] == pytest.approx(statistics.mean(scores), abs=1e-6)
    assert deviation[1] == pytest.approx(statistics.stdev(scores), abs=1e-6)


def test_one_seed_has_counts_but_no_spread() -> None:
    found = stability_of([scored(rows(5, 0), 0)])
    assert found.matched_in.tolist() == [0] * 5 and math.isnan(found.tails["rl"]["alive"].deviation)


@given(values=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=6), missing=st.integers(0, 3))
def test_the_interval_over_seeds_is_students(values: list[float], missing: int) -> None:
    scores = torch.tensor(values + [math.nan] * missing).unsqueeze(1)
    low, high = seed_interval(scores)
    mean, spread = statistics.mean(values), statistics.stdev(values)
    half = t.ppf(0.975, len(values) - 1) * spread / math.sqrt(len(values))
    assert (float(low), float(high)) == pytest.approx((mean - half, mean + half), abs=1e-4)


def test_a_feature_that_only_one_seed_has_no_interval() -> None:
    low, high = seed_interval(torch.tensor([[0.9], [math.nan]]))
    assert low.isnan().all() and high.isnan().all()


def test_equal_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="seeds are 3, 3; stability compares crosscoders of different seeds"):
        stability_of([scored(rows(4, 0), 3), scored(rows(4, 1), 3)])


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="seed 1 aligns base, sft, seed 0 base, rl"):
        stability_of([scored(rows(4, 0), 0), scored(rows(4, 1), 1, ("base", "sft"))])
