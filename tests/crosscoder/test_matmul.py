import pytest
import torch

from featdiff.crosscoder import matmul
from featdiff.crosscoder.matmul import fast_products_are_exact, float32_products


def product() -> torch.Tensor:
    left, right = torch.randn(2, 512, 512, generator=torch.Generator().manual_seed(1))
    return left @ right


def test_the_switch_is_back_where_it_was_after_the_block() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision  # pyright: ignore[reportAttributeAccessIssue] -- see matmul.py
    with float32_products(fast=True):
        pass
    assert torch.backends.mkldnn.matmul.fp32_precision == before  # pyright: ignore[reportAttributeAccessIssue]


def test_a_block_without_the_switch_changes_no_bit() -> None:
    wanted = product()
    with float32_products(fast=False):
        assert torch.equal(product(), wanted)


def test_what_the_probe_accepts_is_exact() -> None:
    wanted = product()
    with float32_products(fast=fast_products_are_exact()):
        assert float((product() - wanted).norm() / wanted.norm()) < 1e-5


def test_a_switch_that_rounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "LARGEST_ERROR", -1.0)
    assert not fast_products_are_exact()
