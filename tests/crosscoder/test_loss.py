import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_crosscoders import KINDS, World, assert_equal, sparsity_of
from torch import Tensor

from featdiff.config.crosscoder import MSE, Cosine, DeltaMSE, Design, JumpReLU, Objective, ReLU, Sparsity
from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.loss import Loss, loss, losses_and_gradients, token_losses
from featdiff.crosscoder.model import Crosscoder

WORLD = World(features=240, d_model=24)
OBJECTIVES: tuple[Objective, ...] = (MSE(), DeltaMSE(-0.5), DeltaMSE(-1.0), Cosine())


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of(sparsity: Sparsity, pre: Tensor, theta: Tensor | None = None, **options: float) -> Loss:
    """The loss of tokens that are 0, under decoder rows of norm 1, 10 and 0.5 of one model."""
    rows = torch.tensor([[1.0], [10.0], [0.5]])[:, None]
    zeros = torch.zeros(len(pre), 1, 1)
    return loss(sparsity, MSE(), zeros, pre, rows, torch.zeros(1, 1), threshold=theta, **options)  # pyright: ignore


def test_the_loss_of_the_paper_by_hand() -> None:
    found = of(ReLU(weight=3.0), torch.tensor([[1.0, -1.0, 3.0], [2.0, 0.5, -4.0]]))
    assert float(found.sparsity) == pytest.approx((1 * 1 + 3 * 0.5 + 2 * 1 + 0.5 * 10) / 2)
    assert float(found.reconstruction) == pytest.approx((2.5**2 + 7**2) / 2)
    assert float(found.total) == pytest.approx((2.5**2 + 7**2) / 2 + 3.0 * 9.5 / 2)
    ramping = of(ReLU(weight=3.0), torch.tensor([[1.0, -1.0, 3.0]]), sparsity_weight=0.5, price=2.0)
    assert float(ramping.total) == pytest.approx(2.5**2 + 0.5 * 2.0 * 2.5)


def test_the_tanh_penalty_hardly_depends_on_how_strong_an_active_feature_is() -> None:
    pre, theta = torch.tensor([[0.0, 0.05, 3.0], [2.0, 0.0, 0.0]]), torch.full((3,), 0.01)
    # c f n: 0, 1, 3 and 4, 0, 0, over two tokens
    wanted = (math.tanh(1) + math.tanh(3) + math.tanh(4)) / 2
    sparsity = JumpReLU(c=2.0, bandwidth=1e-3)
    assert float(of(sparsity, pre, theta).sparsity) == pytest.approx(wanted)
    assert float(of(sparsity, 1000 * pre, theta).sparsity) == pytest.approx(3 / 2)


def test_the_pre_activation_penalty_is_the_way_up_to_the_threshold() -> None:
    found = of(JumpReLU(), torch.tensor([[1.0, -1.0, 3.0], [2.0, 0.5, -4.0]]), torch.tensor([1.5, 0.5, 0.1]))
    # missing: 0.5, 1.5, 0 and 0, 0, 4.1, weighed by 1, 10, 0.5
    assert float(found.pre_activation) == pytest.approx((0.5 + 15 + 4.1 * 0.5) / 2)
    parts = found.reconstruction + found.sparsity_weight * found.sparsity + found.pre_weight * found.pre_activation
    assert found.pre_weight == 3e-6 and float(found.total) == pytest.approx(float(parts))


def test_the_delta_objective_of_two_models_by_hand() -> None:
    error = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])  # squares 5 and 10, product 1
    assert token_losses(DeltaMSE(-0.5), error, error).tolist() == [15 + 2 * -0.5 * 1]
    assert token_losses(DeltaMSE(-1.0), error, error).tolist() == [2**2 + 3**2]  # |e_1 - e_0|^2


def test_at_minus_one_the_delta_objective_is_the_mean_squared_difference_of_pairs() -> None:
    error = normal(7, 4, 5)
    pairs = sum((error[:, m] - error[:, n]).square().sum(dim=-1) for m in range(4) for n in range(m)) / 3
    torch.testing.assert_close(token_losses(DeltaMSE(-1.0), error, error), torch.as_tensor(pairs))
    common = normal(7, 1, 5).expand(-1, 4, -1)
    assert float(token_losses(DeltaMSE(-1.0), common, common).abs().max()) < 1e-12


def test_without_weight_the_delta_objective_is_the_squared_error() -> None:
    error = normal(7, 3, 5)
    assert torch.equal(token_losses(DeltaMSE(0.0), error, error), token_losses(MSE(), error, error))


def test_the_cosine_objective_by_hand() -> None:
    activations = torch.tensor([[[3.0, 4.0]]])
    for rebuilt, cosine, ratio in (
        ([6.0, 8.0], 1.0, 2.0),
        ([-4.0, 3.0], 0.0, 1.0),
        ([0.3, 0.0], 0.6 * 0.06 / 0.1, 0.06),
    ):
        error = torch.tensor([[rebuilt]]) - activations
        wanted = 2 * (2 * (1 - cosine) + (ratio - 1) ** 2)
        assert float(token_losses(Cosine(), error, activations)) == pytest.approx(wanted, rel=1e-6)


def test_the_cosine_objective_does_not_see_the_norm_of_a_token() -> None:
    activations, error = normal(9, 3, 8, seed=1), normal(9, 3, 8, seed=2)
    losses = token_losses(Cosine(), error, activations)
    torch.testing.assert_close(token_losses(Cosine(), 7 * error, 7 * activations), losses)


def test_what_has_no_direction_counts_as_nothing() -> None:
    activations, error = normal(4, 2, 8, seed=1), normal(4, 2, 8, seed=2)
    activations[1, 0] = 0.0
    losses, gradients = losses_and_gradients(Cosine(), error, activations)
    assert losses.isfinite().all() and not gradients[1, 0].any() and gradients[1, 1].any()


@settings(max_examples=40, deadline=None)
@given(
    objective=st.sampled_from(OBJECTIVES),
    models=st.integers(2, 4),
    length=st.sampled_from([0.0, 0.05, 1.0, 3.0]),
    seed=st.integers(0, 100),
)
def test_the_gradient_is_that_of_autograd(objective: Objective, models: int, length: float, seed: int) -> None:
    activations = normal(5, models, 6, seed=seed)
    rebuilt = (length * activations + 0.3 * length * normal(5, models, 6, seed=seed + 1)).requires_grad_()
    losses = token_losses(objective, rebuilt - activations, activations)
    losses.sum().backward()
    found = losses_and_gradients(objective, (rebuilt - activations).detach(), activations)
    torch.testing.assert_close(found[0], losses.detach())
    torch.testing.assert_close(found[1], rebuilt.grad)


@pytest.mark.parametrize("objective", OBJECTIVES[1:])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["dense", "compact", "screened"])
def test_a_step_is_that_of_autograd_in_float64(objective: Objective, kind: str, path: Path) -> None:
    batch, design = WORLD.activations(60), Design(objective=objective)
    wanted = WORLD.expected(kind, 16, batch, dead=True, design=design)
    one = WORLD.learner(WORLD.crosscoder(sparsity_of(kind, 16), 16, design=design), path, dead=True)
    if kind == "batchtopk":
        one._last_cut.fill_(0.9 * float(wanted[1].cut))
    assert_equal((one, one.gradients(batch, 0.7)), wanted)


def test_what_no_objective_can_be_is_refused() -> None:
    for weight in (0.1, -1.5, math.nan):
        with pytest.raises(ValueError, match="Input should be"):
            DeltaMSE(weight)
    with pytest.raises(ValueError, match="is one; use mse"):
        Crosscoder(("base",), 4, 4, design=Design(objective=DeltaMSE()))
