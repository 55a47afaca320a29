import pytest

pytest.importorskip("triton", reason="triton has wheels for Linux only")

import torch
from torch import Tensor

from featdiff.crosscoder.kernels.parameter_rows import Rows
from featdiff.crosscoder.kernels.sparse_step import Pairs
from featdiff.crosscoder.kernels.triton.adam import Derived, refresh
from featdiff.crosscoder.kernels.triton.step import TritonScreen

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOKENS, WIDTH, FEATURES = 60, 96, 80
SLACK = 1e-5
"""Share of |x| |row| within which float32 may see a pair on either side of its floor."""


def world(spread: float) -> tuple[Rows, Tensor, Tensor]:
    """An encoder and tokens whose norms and dimensions differ by orders of magnitude, and floors around 0; each feature
    is active on three tokens, on one of them by a hair."""
    generator = torch.Generator().manual_seed(3)
    enc = torch.randn(FEATURES, WIDTH, generator=generator)
    enc *= torch.exp(spread * torch.randn(FEATURES, 1, generator=generator))
    enc *= torch.exp(spread * torch.randn(WIDTH, generator=generator))
    x = torch.randn(TOKENS, WIDTH, generator=generator)
    x *= torch.exp(spread * torch.randn(TOKENS, 1, generator=generator))
    x[:, 5] *= 100
    floors = 0.1 * torch.randn(FEATURES, generator=generator) * enc.norm(dim=1)
    products = x.double() @ enc.double().T
    third, token = (each[-1] for each in products.topk(3, dim=0))
    b_enc = (floors - third + 2 * SLACK * x[token].norm(dim=1) * enc.norm(dim=1)).float()
    enc, b_enc, x, floors = (tensor.to(DEVICE) for tensor in (enc, b_enc, x, floors))
    return Rows(enc, enc.clone(), b_enc, torch.zeros(WIDTH, device=DEVICE), None), x, floors


def screen_of(weights: Rows) -> TritonScreen:
    derived = Derived.empty(weights, 2)
    refresh(weights, derived)
    return TritonScreen(weights, derived)


def mask_of(pairs: Pairs) -> Tensor:
    mask = torch.zeros(TOKENS, FEATURES, dtype=torch.bool, device=DEVICE)
    mask[pairs.token(TOKENS), pairs.feature] = True
    assert torch.equal(pairs.starts.diff(), mask.sum(dim=1)) and int(pairs.starts[0]) == 0
    return mask


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
def test_the_screen_misses_no_pair_and_lists_none_below_the_floor(spread: float) -> None:
    weights, x, floors = world(spread)
    screen = screen_of(weights)
    exact = x.double() @ weights.enc.double().T + weights.b_enc.double()
    slack = SLACK * x.double().norm(dim=1)[:, None] * weights.enc.double().norm(dim=1)
    for pairs in (screen.pairs(x, floors), screen.pairs_in_full(x, floors)):
        assert pairs is not None
        found = mask_of(pairs)
        assert int(found.sum()) > 2 * FEATURES
        assert not (found & (exact < floors - slack)).any()
        assert not (~found & (exact > floors + slack)).any()
        assert ((pairs.pre.double() - exact[found]).abs() <= slack[found]).all()


def test_an_audit_finds_what_is_missing_and_widens_the_margin() -> None:
    weights, x, floors = world(0.0)
    screen = screen_of(weights)
    whole = screen.pairs(x, floors)
    assert whole is not None and screen.audit(x, floors, whole) == 0
    assert float(screen.margin) == 9.0
    short = whole.only(torch.arange(len(whole.pre), device=DEVICE) != 0)
    assert screen.audit(x, floors, short) == 1
    assert float(screen.margin) == 18.0


def test_too_many_pairs_are_refused() -> None:
    weights, x, floors = world(0.0)
    weights.b_enc.fill_(1e6)
    screen = screen_of(weights)
    assert screen.pairs(x, floors) is None and screen.pairs_in_full(x, floors) is None
