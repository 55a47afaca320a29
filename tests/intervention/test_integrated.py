"""Integrated gradients through a crosscoder (acceptance test T13 is in tests/verify; here are laws and refusals)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder
from featdiff.intervention.integrated import integrated_effects, relative_effects

TRIO = ("base", "sft", "rl")


def made(seed: int = 0) -> tuple[Crosscoder, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    crosscoder = Crosscoder(TRIO, 6, 10, seed=seed, decoder_init_norm=1.0)
    with torch.no_grad():
        crosscoder.scale.copy_(torch.tensor([1.0, 3.0, 0.5]))
        crosscoder.b_dec.copy_(torch.randn(3, 6, generator=generator))
        crosscoder.b_enc.copy_(0.2 * torch.randn(10, generator=generator))
    return crosscoder, torch.randn(20, 3, 6, generator=generator)


def test_effects_by_hand() -> None:
    """Codes 2 and 4 (mean 3); the readout weighs width 0 once and width 1 twice."""
    crosscoder = Crosscoder(("base", "rl"), d_model=2, features=1)
    with torch.no_grad():
        crosscoder.W_dec.copy_(torch.tensor([[[1.0, 0.0], [0.5, 2.0]]]))
        crosscoder.W_enc.copy_(torch.tensor([[[1.0], [0.0]], [[0.0], [0.0]]]))
        crosscoder.scale.copy_(torch.tensor([1.0, 10.0]))
    activations = torch.tensor([[[2.0, 7.0], [1.0, 1.0]], [[4.0, 0.0], [0.0, 3.0]]])
    effects = integrated_effects(crosscoder, activations, lambda residual, _: residual @ torch.tensor([1.0, 2.0]))
    assert effects.tolist() == [pytest.approx([3 * 1.0, 3 * 10 * 4.5])]
    assert relative_effects(effects).tolist() == [pytest.approx([1 / 46, 45 / 46])]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_effects_of_a_curved_readout_sum_to_what_the_features_change(seed: int) -> None:
    """Completeness: sum_k IE_m(k) = F(a) - F(error + b_dec), to the error of the midpoint rule."""
    crosscoder, activations = made(seed)

    def readout(residual: Tensor, model: str) -> Tensor:
        return torch.tanh(residual / 8).sum(dim=1) * (1 + TRIO.index(model))

    effects = integrated_effects(crosscoder, activations, readout, steps=50)
    with torch.no_grad():
        rebuilt = crosscoder.decode(crosscoder.encode(activations)) - crosscoder.b_dec * crosscoder.scale[:, None]
    for m, model in enumerate(TRIO):
        whole = readout(activations[:, m], model) - readout((activations - rebuilt)[:, m], model)
        assert float(effects[:, m].sum()) == pytest.approx(float(whole.mean()), abs=2e-3)


def test_effects_are_the_gradients_that_autograd_takes_through_the_decoder() -> None:
    """Second road: the path through codes, decode and error as the equation says it."""
    crosscoder, activations = made(3)
    codes = crosscoder.encode(activations).detach()
    error = activations - crosscoder.decode(codes).detach()
    wanted = torch.zeros(10, 3)
    for step in range(10):
        for m in range(3):
            path = ((step + 0.5) / 10 * codes).requires_grad_()
            value = (crosscoder.decode(path) + error)[:, m].pow(3).sum()
            wanted[:, m] += (codes * torch.autograd.grad(value, path)[0]).mean(dim=0) / 10
    found = integrated_effects(crosscoder, activations, lambda residual, _: residual.pow(3).sum(dim=1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_shares_of_effects_ignore_their_sign_and_stay_neutral_without_any() -> None:
    effects = torch.tensor([[-3.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert relative_effects(effects).tolist() == [[0.75, 0.25, 0.0], [0.5, 0.5, 0.5]]


def test_gradients_are_taken_where_the_caller_has_switched_them_off() -> None:
    crosscoder, activations = made()
    with torch.no_grad():
        assert integrated_effects(crosscoder, activations, lambda residual, _: residual[:, 0]).abs().max() > 0


@pytest.mark.parametrize(
    ("readout", "said"),
    [
        (lambda residual, _: residual, "shape .20, 6. for 20 items"),
        (lambda residual, _: residual[:, 0] * math.nan, "one finite number per item"),
        (lambda residual, _: residual[:, 0].detach(), "no gradient"),
    ],
)
def test_readouts_that_give_no_number_or_no_gradient_are_refused(readout, said: str) -> None:
    crosscoder, activations = made()
    with pytest.raises(ValueError, match=said):
        integrated_effects(crosscoder, activations, readout)


def test_no_items_and_no_steps_are_refused() -> None:
    crosscoder, activations = made()
    for items, steps in ((0, 10), (20, 0)):
        with pytest.raises(ValueError, match="at least 1 of each"):
            integrated_effects(crosscoder, activations[:items], lambda residual, _: residual[:, 0], steps=steps)
