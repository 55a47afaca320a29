import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from einops import einsum
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from featdiff.config.crosscoder import BatchTopK, JumpReLU, ReLU, Sparsity
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import (
    Gates,
    auxiliary_features,
    floor,
    gates,
    inference_features,
    jump_relu,
    smallest_kept,
    training_features,
    updated_threshold,
)

PRE = torch.tensor([[1.0, -1.0, 3.0], [2.0, 0.5, -4.0]])
NORMS = torch.tensor([1.0, 10.0, 0.5])
THETA = torch.tensor([1.5, 0.5, 0.1])
NO_CUT = torch.tensor(math.inf)


def test_relu_is_the_same_in_training_and_at_inference() -> None:
    wanted = torch.tensor([[1.0, 0.0, 3.0], [2.0, 0.5, 0.0]])
    assert torch.equal(training_features(ReLU(), PRE, NORMS), wanted)
    assert torch.equal(inference_features(ReLU(), PRE, NORMS, torch.tensor(9.0)), wanted)


def test_batch_top_k_ranks_by_contribution_and_not_by_activation() -> None:
    # contributions: 1, 0, 1.5 and 2, 5, 0; the two largest are 5 and 2, both of the second token
    kept = training_features(BatchTopK(k=1), PRE, NORMS)
    assert torch.equal(kept, torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.5, 0.0]]))


def test_the_threshold_decides_for_each_token_by_itself() -> None:
    kept = inference_features(BatchTopK(k=1), PRE, NORMS, torch.tensor(1.5))
    assert torch.equal(kept, torch.tensor([[0.0, 0.0, 3.0], [2.0, 0.5, 0.0]]))


def test_without_enough_positive_contributions_all_of_them_stay() -> None:
    assert torch.equal(training_features(BatchTopK(k=3), PRE, NORMS), torch.relu(PRE))
    assert not training_features(BatchTopK(k=3), -torch.ones(2, 3), NORMS).any()


def test_the_cut_is_the_smallest_contribution_that_stays() -> None:
    contributions = torch.tensor([[4.0, 0.0, 1.0], [3.0, 2.0, 0.0]])
    assert float(smallest_kept(contributions, 3)) == 2.0
    assert float(smallest_kept(contributions, 9)) == 1.0
    assert float(smallest_kept(torch.zeros(2, 2), 1)) == float("inf")


def test_the_threshold_starts_at_the_first_cut_and_follows_slowly() -> None:
    first = updated_threshold(torch.tensor(0.0), torch.tensor(2.0))
    assert float(first) == 2.0
    assert float(updated_threshold(first, torch.tensor(3.0))) == pytest.approx(2.01)
    assert float(updated_threshold(first, torch.tensor(float("inf")))) == 2.0


def test_auxk_takes_the_strongest_dead_features_of_every_token() -> None:
    pre = torch.tensor([[5.0, 1.0, 2.0, 3.0], [5.0, -1.0, -2.0, 1.0]])
    dead = torch.tensor([False, True, True, True])
    chosen = auxiliary_features(pre, dead, 2)
    assert torch.equal(chosen, torch.tensor([[0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]]))


def test_jump_relu_passes_what_exceeds_the_threshold_of_its_feature() -> None:
    wanted = torch.tensor([[0.0, 0.0, 3.0], [2.0, 0.0, 0.0]])  # 0.5 only equals its threshold
    assert torch.equal(training_features(JumpReLU(), PRE, NORMS, THETA), wanted)
    assert torch.equal(inference_features(JumpReLU(), PRE, NORMS, torch.tensor(9.0), THETA), wanted)


def test_the_threshold_learns_from_what_lies_near_it() -> None:
    pre, threshold = PRE.clone().requires_grad_(), THETA.clone().requires_grad_()
    arriving = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    jump_relu(pre, threshold, bandwidth=2.0).backward(arriving)
    assert pre.grad is not None and threshold.grad is not None
    assert torch.equal(pre.grad, torch.tensor([[0.0, 0.0, 3.0], [4.0, 0.0, 0.0]]))
    # nearer than 1 to the threshold: both tokens of feature 0, and the second of feature 1
    assert torch.equal(threshold.grad, torch.tensor([-1.5 / 2 * (1 + 4), -0.5 / 2 * 5, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_estimate_is_the_slope_of_the_mean_over_many_pre_activations(dtype: torch.dtype) -> None:
    # Evenly spread over [-1, 3], a threshold of 1.2 that moves by h turns 2h / 4 of the entries off, each worth 1.2.
    pre = torch.linspace(-1, 3, 40_001, dtype=torch.float64).to(dtype)[:, None]
    threshold = torch.tensor([1.2], dtype=dtype, requires_grad=True)
    jump_relu(pre, threshold, bandwidth=0.5).mean().backward()

    def mean(theta: float) -> float:
        return float(jump_relu(pre, torch.tensor([theta], dtype=dtype), 0.5).double().mean())

    assert threshold.grad is not None and threshold.grad.dtype == dtype
    assert threshold.grad.item() == pytest.approx((mean(1.3) - mean(1.1)) / 0.2, rel=1e-3)
    assert threshold.grad.item() == pytest.approx(-1.2 / 4, rel=1e-3)


def test_gates_of_relu() -> None:
    found = gates(ReLU(), PRE, NORMS, None, 3.0, NO_CUT)
    assert torch.equal(found.value, torch.tensor([[1.0, 0.0, 3.0], [2.0, 0.5, 0.0]]))
    assert torch.equal(found.open, torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))
    assert torch.equal(found.penalty, torch.tensor([[3.0, 30.0, 1.5], [3.0, 30.0, 1.5]]))
    assert torch.equal(found.share, torch.tensor([[3.0, 0.0, 9.0], [6.0, 1.5, 0.0]]))
    assert torch.equal(found.slope, torch.zeros(2, 3))


def test_gates_of_batch_top_k() -> None:
    found = gates(BatchTopK(), PRE, NORMS, None, 3.0, torch.tensor(1.5))
    assert torch.equal(found.value, torch.tensor([[0.0, 0.0, 3.0], [2.0, 0.5, 0.0]]))
    assert torch.equal(found.open, torch.tensor([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))
    assert not found.penalty.any() and not found.share.any() and not found.slope.any()
    assert not gates(BatchTopK(), PRE, NORMS, None, 3.0, NO_CUT).value.any()


def test_gates_of_jump_relu() -> None:
    found = gates(JumpReLU(c=0.5, bandwidth=2.0), PRE, NORMS, THETA, 3.0, NO_CUT)
    assert torch.equal(found.value, torch.tensor([[0.0, 0.0, 3.0], [2.0, 0.0, 0.0]]))
    assert torch.equal(found.open, torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    # theta^2 / bandwidth: 1.125, 0.125, 0.005
    torch.testing.assert_close(found.slope, -torch.tensor([[1.125, 0.0, 0.0], [1.125, 0.125, 0.0]]))
    # w c n is 1.5, 15, 0.75; what is active has c f n = 0.75 and 1
    first, second = 1 / math.cosh(0.75) ** 2, 1 / math.cosh(1) ** 2
    torch.testing.assert_close(found.penalty, torch.tensor([[1.5, 15.0, 0.75 * first], [1.5 * second, 15.0, 0.75]]))
    torch.testing.assert_close(found.share, torch.tensor([[0.0, 0.0, 4.5 * first], [3.0 * second, 0.0, 0.0]]))


@pytest.mark.parametrize("sparsity", [ReLU(), BatchTopK(), JumpReLU()])
def test_gates_of_a_list_of_entries_are_those_of_the_batch(sparsity: Sparsity) -> None:
    token, feature = torch.tensor([1, 0, 1, 0]), torch.tensor([0, 2, 1, 1])
    batch = gates(sparsity, PRE, NORMS, THETA, 0.7, torch.tensor(1.5))
    entries = gates(sparsity, PRE[token, feature], NORMS[feature], THETA[feature], 0.7, torch.tensor(1.5))
    for field in fields(Gates):
        assert torch.equal(getattr(entries, field.name), getattr(batch, field.name)[token, feature]), field.name


@pytest.mark.parametrize("sparsity", [ReLU(), BatchTopK(k=3), JumpReLU(pre_weight=0.3)])
def test_gates_hold_what_autograd_finds(sparsity: Sparsity) -> None:
    generator = torch.Generator().manual_seed(3)
    made = Crosscoder(models=("base", "sft", "rl"), d_model=8, features=20, sparsity=sparsity).double()
    values = torch.randn(12, 3, 8, generator=generator).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    made.loss(values, sparsity_weight=0.7).total.backward()
    with torch.no_grad():
        wanted = gradients_from_gates(made, values, 0.7)
    for name, parameter in made.named_parameters():
        torch.testing.assert_close(wanted[name], parameter.grad, msg=lambda text, name=name: f"{name}: {text}")


def gradients_from_gates(made: Crosscoder, values: Tensor, weight: float) -> dict[str, Tensor]:
    """Every gradient of `Crosscoder.loss`, by the chain rule from `gates`."""
    x, pre, norms, theta = made.normalise(values), made.pre_activations(values), made.decoder_norms(), made.thresholds()
    cut = smallest_kept(pre.clamp(min=0) * norms, 3 * len(x))  # BatchTopK's; the others ignore it
    found = gates(made.sparsity, pre, norms, theta, weight, cut)
    pull = 2 * (einsum(found.value, made.W_dec, "t f, f m d -> t m d") + made.b_dec - x)
    arriving = einsum(pull, made.W_dec, "t m d, f m d -> t f") + found.penalty
    at_pre, at_norms = arriving * found.open, found.share.sum(dim=0)
    wanted = {}
    if isinstance(made.sparsity, JumpReLU):
        assert theta is not None
        missing, pre_weight = (theta - pre).clamp(min=0), made.sparsity.pre_weight
        at_pre = at_pre - pre_weight * norms * (missing > 0)
        at_norms = at_norms + pre_weight * missing.sum(dim=0)
        ordinary = pre_weight * norms * theta * (missing > 0)
        wanted["log_threshold"] = (arriving * found.slope + ordinary).sum(dim=0) / len(x)
    directions = made.W_dec / made.W_dec.norm(dim=-1, keepdim=True)
    at_W_dec = einsum(found.value, pull, "t f, t m d -> f m d") + einsum(at_norms, directions, "f, f m d -> f m d")
    return wanted | {
        "W_dec": at_W_dec / len(x),
        "b_dec": pull.sum(dim=0) / len(x),
        "W_enc": einsum(x, at_pre, "t m d, t f -> m d f") / len(x),
        "b_enc": at_pre.sum(dim=0) / len(x),
    }


def test_floors() -> None:
    norms = torch.tensor([2.0, 0.0, 0.5])
    assert torch.equal(floor(ReLU(), norms, None, NO_CUT), torch.zeros(3))
    assert floor(BatchTopK(), norms, None, torch.tensor(3.0)).tolist() == pytest.approx([1.5, math.inf, 6.0])
    assert floor(BatchTopK(), norms, None, NO_CUT).tolist() == [math.inf] * 3
    assert floor(JumpReLU(bandwidth=0.5), norms, THETA, NO_CUT).tolist() == pytest.approx([1.25, 0.25, -0.15])


@given(st.integers(0, 2**32), st.sampled_from([ReLU(), BatchTopK(), JumpReLU(bandwidth=0.3)]))
def test_nothing_below_the_floor_counts_and_all_above_it_does(seed: int, sparsity: Sparsity) -> None:
    pre, norms, threshold = _random_batch(seed)
    contributions = pre * norms
    cut = contributions.flatten().sort(descending=True).values[len(pre)]  # of an entry, which must stay
    found = gates(sparsity, pre, norms, threshold, 1.0, cut)
    lowest = floor(sparsity, norms, threshold, cut)
    counts = (found.value != 0) | (found.open != 0) | (found.slope != 0) | (found.share != 0)
    assert not (counts & (pre < lowest)).any()
    assert bool((counts | (pre < lowest + 1e-5)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_pushes_nothing_at_the_cut_below_the_floor(dtype: torch.dtype) -> None:
    norms, cut = 0.01 + torch.rand(10_000, generator=torch.Generator().manual_seed(0)).to(dtype), torch.tensor(0.7)
    lower = cut.to(dtype) / norms
    for _ in range(3):
        kept = gates(BatchTopK(), lower, norms, None, 0.0, cut.to(dtype)).open > 0
        assert bool((lower >= floor(BatchTopK(), norms, None, cut.to(dtype)))[kept].all())
        lower = lower.nextafter(torch.zeros((), dtype=dtype))


def _random_batch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pre = torch.randn(30, 7, generator=generator)
    return pre, 0.01 + torch.rand(7, generator=generator), 0.01 + torch.rand(7, generator=generator)


@pytest.mark.parametrize(
    "sparsity",
    [
        ReLU(weight=0.5, warmup=0.2),
        BatchTopK(k=7, aux_k=3, dead_after_tokens=99),
        JumpReLU(weight=3.0, c=2.0, warmup=0.5, pre_weight=1e-3, bandwidth=0.1, threshold=0.7),
    ],
)
def test_a_folder_gives_the_sparsity_back(sparsity: Sparsity, tmp_path: Path) -> None:
    Crosscoder(("base", "rl"), 4, 9, sparsity).save(tmp_path)
    assert Crosscoder.load(tmp_path).sparsity == sparsity


def test_arguments_may_be_given_by_position() -> None:
    assert ReLU(3.0, 0.5) == ReLU(weight=3.0, warmup=0.5)
    assert BatchTopK(7) == BatchTopK(k=7) and JumpReLU(0.1, 2.0) == JumpReLU(weight=0.1, c=2.0)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(ReLU, "weight"), (ReLU, "warmup"), (BatchTopK, "k"), (BatchTopK, "aux_k"), (JumpReLU, "bandwidth")],
)
def test_impossible_values_are_refused(kind: type, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        kind(**{wrong: -1})
