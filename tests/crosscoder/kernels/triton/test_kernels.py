"""Every program beside the same sum over dense tensors, with blocks so small that rows and pairs take several."""

import pytest

pytest.importorskip("triton", reason="triton has wheels for Linux only")

import torch
from torch import Tensor

from featdiff.crosscoder.kernels.triton import kernels as triton_kernels
from featdiff.crosscoder.kernels.triton.kernels import (
    block_of,
    decoded,
    gradient_rows,
    listed,
    pair_products,
    sums_by_feature,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOKENS, FEATURES, WIDTH, MODELS = 9, 37, 33, 3


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"LISTED": 16, "PRODUCT": (4, 16), "DECODED": (2, 16), "GRADIENT": (2, 16), "SUMMED": (8, 2)}
    for name, block in small.items():
        monkeypatch.setattr(triton_kernels, name, block)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def some_pairs() -> tuple[Tensor, Tensor, Tensor]:
    """A mask [tokens features], and tokens and features of its pairs: a busy feature, and many without any."""
    mask = random(TOKENS, FEATURES) > 1.3
    mask[:, 4], mask[2] = True, False
    token, feature = mask.nonzero().int().unbind(dim=1)
    return mask, token, feature


def starts_of(mask: Tensor) -> Tensor:
    return torch.nn.functional.pad(mask.sum(dim=1).cumsum(0), (1, 0))


def test_a_block_holds_a_small_row_and_cuts_a_large_one() -> None:
    assert [block_of(size, 16) for size in (1, 3, 8, 16, 17, 1000)] == [1, 4, 8, 16, 16, 16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pairs_above_the_bound_are_listed_in_order(dtype: torch.dtype) -> None:
    scores, floors = random(TOKENS, FEATURES).to(dtype), 0.5 + 0.1 * random(FEATURES, seed=1)
    limits, reach = random(TOKENS, seed=2).abs(), random(FEATURES, seed=3).abs()
    scores[3, 7], floors[9] = torch.nan, torch.inf
    mask = scores.float() > floors - limits[:, None] * reach
    mask[3, 7] = True
    found = listed(scores, floors, limits, reach, most=int(mask.sum()))
    assert found is not None and 20 < int(mask.sum()) < 300
    starts, token, feature = found
    assert torch.equal(starts, starts_of(mask))
    assert torch.equal(torch.stack([token, feature], dim=1).long(), mask.nonzero())
    assert listed(scores, floors, limits, reach, most=int(mask.sum()) - 1) is None


def test_a_process_without_tokens_lists_nothing() -> None:
    nothing = listed(random(0, FEATURES), random(FEATURES), random(0), random(FEATURES), most=0)
    assert nothing is not None
    assert nothing[0].tolist() == [0] and not len(nothing[1]) and not len(nothing[2])


def test_products_of_pairs_are_entries_of_the_product() -> None:
    left, right, (mask, token, feature) = random(TOKENS, WIDTH), random(FEATURES, WIDTH, seed=1), some_pairs()
    torch.testing.assert_close(pair_products(left, right, token, feature), (left @ right.T)[mask])


def test_decoding_is_a_product_with_the_codes() -> None:
    dec, (mask, _, feature) = random(FEATURES, WIDTH), some_pairs()
    value = random(len(feature), seed=1)
    codes = torch.zeros(TOKENS, FEATURES, device=DEVICE).masked_scatter_(mask, value)
    out = decoded(value, feature, starts_of(mask), dec)
    torch.testing.assert_close(out, codes @ dec)
    assert not out[2].any()


def test_sums_by_feature_are_sums_over_tokens() -> None:
    by_feature = some_pairs()[0].T
    values = random(2, int(by_feature.sum()))
    dense = torch.stack([torch.zeros(FEATURES, TOKENS, device=DEVICE).masked_scatter_(by_feature, v) for v in values])
    torch.testing.assert_close(sums_by_feature(values, starts_of(by_feature)), dense.sum(dim=2))


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("shares", [False, True])
def test_gradient_rows_are_products_with_arriving_gradients_and_codes(everywhere: bool, shares: bool) -> None:
    by_feature = some_pairs()[0].T
    x, pull, rows = random(TOKENS, WIDTH), random(TOKENS, WIDTH, seed=1), random(FEATURES, WIDTH, seed=2)
    arriving, value = random(2, int(by_feature.sum()), seed=3)
    factor, batch_sum, unit = random(FEATURES, seed=4), random(WIDTH, seed=5), random(FEATURES, MODELS, seed=6)
    wanted_enc, wanted_dec = (
        torch.zeros(FEATURES, TOKENS, device=DEVICE).masked_scatter_(by_feature, values) @ other
        for values, other in ((arriving, x), (value, pull))
    )
    now = by_feature.any(dim=1) | everywhere
    before = torch.arange(FEATURES, device=DEVICE) % 2 == 0
    if everywhere:
        wanted_enc += factor[:, None] * batch_sum
    if shares:
        wanted_dec += now[:, None] * (unit[:, :, None] * rows.view(FEATURES, MODELS, -1)).view(FEATURES, WIDTH)
    enc, dec = torch.full((2, FEATURES, WIDTH), torch.nan, device=DEVICE)
    squares = gradient_rows(
        starts_of(by_feature),
        by_feature.nonzero()[:, 1].int(),
        arriving,
        value,
        x,
        pull,
        (factor, batch_sum) if everywhere else None,
        (unit, rows) if shares else None,
        before,
        now,
        enc,
        dec,
    )
    written = now | before
    assert everywhere or not written.all()
    torch.testing.assert_close(enc[written], wanted_enc[written])
    torch.testing.assert_close(dec[written], wanted_dec[written])
    assert enc[~written].isnan().all() and dec[~written].isnan().all()
    torch.testing.assert_close(squares.sum(dim=1), (wanted_enc.square() + wanted_dec.square()).sum(dim=1))
