from dataclasses import replace

import pytest
import torch
from torch import Tensor

from featdiff.config.crosscoder import MSE, Cosine, DeltaMSE, Objective
from featdiff.crosscoder.kernels.parameter_rows import Batch, Pull
from featdiff.crosscoder.loss import losses_and_gradients

TOTAL = 10


def normal(seed: int) -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))


def batch(objective: Objective) -> Batch:
    dead = torch.zeros(5, dtype=torch.bool)
    return Batch(x=normal(0), total=TOTAL, weight=1.0, dead=dead, guess=0.0, step=0, objective=objective)


@pytest.mark.parametrize("objective", [MSE(), DeltaMSE(-0.7), Cosine()])
def test_a_pull_is_the_gradient_over_all_tokens_of_the_batch(objective: Objective) -> None:
    error, of = normal(1), batch(objective)
    found = Pull.of(of, error, models=2)
    losses, gradients = losses_and_gradients(objective, error.view(4, 2, 3), of.x.view(4, 2, 3))
    torch.testing.assert_close(found.rows, gradients.view(4, 6) / TOTAL)
    torch.testing.assert_close(found.loss, losses.sum() / TOTAL)
    torch.testing.assert_close(found.squared_error, error.square().sum() / TOTAL)


@pytest.mark.parametrize("objective", [MSE(), DeltaMSE(-1.0), Cosine()])
def test_what_joins_the_reconstruction_joins_the_error(objective: Objective) -> None:
    error, more = normal(1), normal(2)
    found = Pull.of(batch(objective), error, models=2).error_with(more.clone(), TOTAL)
    torch.testing.assert_close(found, error + more)


@pytest.mark.parametrize("objective", [MSE(), DeltaMSE(-1.0), Cosine()])
def test_a_process_without_tokens_has_no_pull(objective: Objective) -> None:
    of = batch(objective)
    found = Pull.of(replace(of, x=of.x[:0]), normal(1)[:0], models=2)
    assert found.rows.shape == (0, 6) and not found.loss and not found.squared_error
