import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from featdiff.crosscoder.kernels.cpu.active_pairs import Int8Screen
from featdiff.crosscoder.kernels.cpu.threads import Workers
from featdiff.crosscoder.kernels.parameter_rows import Rows
from featdiff.crosscoder.kernels.sparse_step import Pairs

WIDTH, FEATURES = 96, 500


def encoder(seed: int, spread: float) -> Rows:
    """Rows whose norms and whose dimensions differ by orders of magnitude; each is active on 3 % of the tokens."""
    generator = torch.Generator().manual_seed(seed)
    enc = torch.randn(FEATURES, WIDTH, generator=generator)
    enc *= torch.exp(spread * torch.randn(FEATURES, 1, generator=generator))
    enc *= torch.exp(spread * torch.randn(WIDTH, generator=generator))
    b_enc = -torch.quantile(tokens(seed, spread) @ enc.T, 0.97, dim=0)
    return Rows(enc, enc.clone(), b_enc, torch.zeros(WIDTH), None)


def tokens(seed: int, spread: float) -> Tensor:
    generator = torch.Generator().manual_seed(1000 + seed)
    x = torch.randn(300, WIDTH, generator=generator)
    x *= torch.exp(spread * torch.randn(300, 1, generator=generator))
    x[:, 5] *= 100
    return x


def listed(pairs: Pairs) -> Tensor:
    mask = torch.zeros(len(pairs.starts) - 1, FEATURES, dtype=torch.bool)
    mask[torch.arange(len(mask)).repeat_interleave(pairs.starts.diff()), pairs.feature.long()] = True
    return mask


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 500), spread=st.sampled_from([0.0, 0.5, 2.0]), threads=st.sampled_from([1, 3]))
def test_the_screen_misses_no_pair_and_lists_none_below_the_floor(seed: int, spread: float, threads: int) -> None:
    weights, x = encoder(seed, spread), tokens(seed, spread)
    floors = 0.1 * torch.randn(FEATURES, generator=torch.Generator().manual_seed(seed)) * weights.enc.norm(dim=1)
    screen = Int8Screen(weights, Workers(threads))
    screen.refresh(0, FEATURES)
    exact = x.double() @ weights.enc.double().T + weights.b_enc.double()
    # Whatever lies within float32's rounding of the floor may fall on either side.
    slack = 1e-5 * x.double().norm(dim=1)[:, None] * weights.enc.double().norm(dim=1)
    for pairs in (screen.pairs(x, floors), screen.pairs_in_full(x, floors)):
        assert pairs is not None
        found = listed(pairs)
        assert found.any()
        assert not (found & (exact < floors - slack)).any()
        assert not (~found & (exact > floors + slack)).any()
        there = found.nonzero()
        torch.testing.assert_close(
            pairs.pre.double(), exact[there[:, 0], there[:, 1]], rtol=1e-5, atol=float(slack.max())
        )


def test_an_audit_finds_what_a_narrow_margin_misses_and_widens_it() -> None:
    weights, x = encoder(3, 0.0), tokens(3, 0.0)
    screen, floors = Int8Screen(weights, Workers(1)), torch.zeros(FEATURES)
    screen.refresh(0, FEATURES)
    whole = screen.pairs(x, floors)
    assert whole is not None and screen.audit(x, floors, whole) == 0
    assert float(screen.margin) == 9.0
    short = whole.only(torch.arange(len(whole.pre)) != 0)
    assert screen.audit(x, floors, short) == 1
    assert float(screen.margin) == 18.0
    wide = screen.pairs(x, floors)
    assert wide is not None and torch.equal(listed(wide), listed(whole))


def test_too_many_pairs_are_refused() -> None:
    weights = encoder(0, 0.0)
    weights.b_enc.fill_(1e6)
    screen = Int8Screen(weights, Workers(1))
    screen.refresh(0, FEATURES)
    for search in (screen.pairs, screen.pairs_in_full):
        assert search(tokens(0, 0.0), torch.zeros(FEATURES)) is None


def test_a_batch_without_pairs_is_no_special_case() -> None:
    weights = encoder(0, 0.0)
    weights.b_enc.fill_(-1e6)
    screen = Int8Screen(weights, Workers(1))
    screen.refresh(0, FEATURES)
    pairs = screen.pairs(tokens(0, 0.0)[:3], torch.zeros(FEATURES))
    assert pairs is not None and len(pairs.pre) == 0 and pairs.starts.tolist() == [0, 0, 0, 0]


def test_what_is_found_depends_neither_on_the_margin_nor_on_the_first_batch() -> None:
    weights, floors = encoder(5, 0.5), torch.zeros(FEATURES)
    found = []
    for margin, first in ((9.0, tokens(5, 0.5)), (40.0, tokens(6, 0.5))):
        screen = Int8Screen(weights, Workers(1))
        screen.refresh(0, FEATURES)
        screen.margin.fill_(margin)
        screen.pairs(first, floors)
        found.append(screen.pairs(tokens(5, 0.5), floors))
    one, other = found
    assert one is not None and other is not None
    assert (one.feature == other.feature).all() and (one.pre == other.pre).all()


def test_tokens_that_int8_cannot_tell_apart_are_encoded_in_full() -> None:
    weights, x = encoder(7, 0.0), tokens(7, 0.0)
    screen = Int8Screen(weights, Workers(1))
    screen.refresh(0, FEATURES)
    screen.pairs(x, torch.zeros(FEATURES))  # measures each dimension
    # One number of each token dwarfs the others, not always the same: all others would round to 0.
    x[torch.arange(300), torch.arange(300) % WIDTH] += 1e4
    floors = torch.quantile(x @ weights.enc.T + weights.b_enc, 0.97, dim=0)
    pairs, full = screen.pairs(x, floors), screen.pairs_in_full(x, floors)
    assert pairs is not None and full is not None
    assert torch.equal(listed(pairs), listed(full)) and (pairs.pre == full.pre).all()
