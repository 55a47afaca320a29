import math

import pytest

pytest.importorskip("triton", reason="triton has wheels for Linux only")

import torch

from featdiff.crosscoder.kernels.parameter_rows import Rates, Rows
from featdiff.crosscoder.kernels.triton import adam as triton_adam
from featdiff.crosscoder.kernels.triton.adam import Derived, refresh, update

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FEATURES, MODELS, D_MODEL = 7, 3, 13
BETAS = (0.8, 0.95)
GUARD = 16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_adam, "BLOCK", 8)


def random_rows(seed: int) -> Rows:
    """Rows of which each has a place of its own in memory with a guard behind it."""
    width, generator = MODELS * D_MODEL, torch.Generator().manual_seed(seed)
    sizes = ((FEATURES, width), (FEATURES, width), (FEATURES,), (width,), (FEATURES,))
    buffers = [torch.randn(math.prod(size) + GUARD, generator=generator).to(DEVICE) for size in sizes]
    for buffer in buffers:
        buffer[-GUARD:] = 0.5
    return Rows(*(buffer[:-GUARD].view(size) for buffer, size in zip(buffers, sizes, strict=True)))


def guards(rows: Rows) -> torch.Tensor:
    whole = [tensor.new_empty(0).set_(tensor.untyped_storage()) for tensor in vars(rows).values()]
    return torch.stack([buffer[-GUARD:] for buffer in whole])


def test_three_steps_are_those_of_torch() -> None:
    weights, means, squares = random_rows(0), random_rows(1), random_rows(2)
    derived = Derived.empty(weights, MODELS)
    for rows in (means, squares):
        for tensor in vars(rows).values():
            tensor.zero_()
    parameters = [torch.nn.Parameter(tensor.double()) for tensor in vars(weights).values()]
    adam = torch.optim.Adam(parameters, lr=1.0, betas=BETAS)
    for step in (1, 2, 3):
        gradients, touched = random_rows(10 + step), torch.arange(FEATURES, device=DEVICE) % 3 != step % 3
        for rows in (gradients.enc, gradients.dec):
            rows[~touched] = 0
        for parameter, gradient in zip(parameters, vars(gradients).values(), strict=True):
            parameter.grad = 0.5 * gradient.double()
        adam.param_groups[0]["lr"] = 0.1 / step
        adam.step()
        for rows in (gradients.enc, gradients.dec):
            rows[~touched] = torch.nan  # must not be read
        rates = Rates(lr=0.1 / step, betas=BETAS, step=step, coefficient=0.5)
        update(weights, gradients, means, squares, touched, rates, derived)
    for parameter, tensor in zip(parameters, vars(weights).values(), strict=True):
        torch.testing.assert_close(tensor.double(), parameter.detach(), rtol=1e-6, atol=1e-6)
    for rows in (weights, means, squares):
        assert (guards(rows) == 0.5).all()


def test_what_is_derived_of_the_weights_is_right_and_the_same_after_a_step_as_anew() -> None:
    weights, zeros = random_rows(0), random_rows(1)
    weights.enc[0], weights.dec[0] = 0, 0
    weights.enc[1] = (1 + 2**-8) * torch.where(weights.enc[1] > 0, 1.0, -2.0)  # halfway between two bfloat16
    for tensor in vars(zeros).values():
        tensor.zero_()
    touched = torch.ones(FEATURES, dtype=torch.bool, device=DEVICE)
    left, anew = Derived.empty(weights, MODELS), Derived.empty(weights, MODELS)
    for step, gradients in ((1, zeros), (2, random_rows(2))):
        update(weights, gradients, zeros, zeros, touched, Rates(0.1, BETAS, step, 1.0), left)
        refresh(weights, anew)
        assert torch.equal(left.mirror, weights.enc.bfloat16())
        torch.testing.assert_close(left.reach, weights.enc.pow(4).sum(dim=1).pow(0.25))
        torch.testing.assert_close(left.row_norms, weights.norms(MODELS))
        for name, tensor in vars(left).items():
            assert torch.equal(getattr(anew, name), tensor), name
