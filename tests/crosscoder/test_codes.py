import pytest
import torch
from torch import Tensor

from featdiff.crosscoder import codes
from featdiff.crosscoder.codes import DenseCodes, SparseCodes, batch_top_k_codes, relu_codes

needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="the sparse form on a CPU needs MKL")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(pre: Tensor, code: DenseCodes | SparseCodes) -> Tensor:
    """The codes as a matrix, by their own product with the identity."""
    return code.times(torch.eye(pre.shape[1], dtype=pre.dtype))


@needs_mkl
def test_both_forms_give_the_same_products() -> None:
    pre = random(30, 50) - 2.0
    left, right, offset = random(30, 7, seed=1), random(50, 7, seed=2), random(50, seed=3)
    sparse, full = relu_codes(pre), DenseCodes(torch.relu(pre))
    assert isinstance(sparse, SparseCodes)
    torch.testing.assert_close(sparse.times(right), full.times(right))
    torch.testing.assert_close(sparse.transposed_times(left), full.transposed_times(left))
    torch.testing.assert_close(sparse.sum(), full.sum())
    assert sparse.active() == full.active() == int((pre > 0).sum())
    sampled, expected = sparse.sampled(left, right, offset), full.sampled(left, right, offset)
    torch.testing.assert_close(dense(pre, sampled), expected.values)
    torch.testing.assert_close(expected.values, (left @ right.T + offset) * (pre > 0))


def test_many_active_features_take_the_dense_form_and_few_the_sparse() -> None:
    assert isinstance(relu_codes(random(20, 20)), DenseCodes)
    few = torch.full((20, 20), -1.0)
    few[3, 5] = 2.0
    assert isinstance(relu_codes(few), SparseCodes if torch.backends.mkl.is_available() else DenseCodes)
    assert relu_codes(torch.full((20, 20), -1.0)).active() == 0


@pytest.mark.parametrize("guess", [0.0, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_the_guess_at_the_cut_never_changes_the_choice(
    guess: float, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "SPARSE_BELOW", limit)
    pre, norms = random(40, 30), random(30, seed=1).abs()
    chosen, cut = batch_top_k_codes(pre, norms, 80, guess)
    ranked = (pre.clamp(min=0) * norms).flatten().sort(descending=True).values
    assert float(cut) == float(ranked[79])
    torch.testing.assert_close(dense(pre, chosen), pre * (pre * norms >= ranked[79]))


def test_where_few_contributions_are_positive_only_these_are_chosen() -> None:
    pre = -torch.ones(4, 5)
    pre[2, 3] = 2.0
    chosen, cut = batch_top_k_codes(pre, torch.ones(5), 8, 0.0)
    assert chosen.active() == 1 and float(cut) == 2.0
    nothing, cut = batch_top_k_codes(-torch.ones(4, 5), torch.ones(5), 8, 0.0)
    assert nothing.active() == 0 and float(cut) == float("inf")
