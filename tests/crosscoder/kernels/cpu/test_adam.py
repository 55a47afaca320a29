import numpy as np
import torch

from featdiff.crosscoder.kernels.cpu.adam import CopyArrays, norms_of, update
from featdiff.crosscoder.kernels.cpu.compiled import RowArrays
from featdiff.crosscoder.kernels.cpu.encode import mirror


def rows(seed: int) -> RowArrays:
    generator = np.random.default_rng(seed)
    enc, dec = (generator.standard_normal((6, 10)).astype(np.float32) for _ in range(2))
    return RowArrays(enc, dec, generator.standard_normal(6).astype(np.float32), np.zeros(6, np.float32))


def empty_copies() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.empty(6, np.float32), np.empty(6, np.float32), np.empty((6, 10), np.int8)


def test_ten_steps_are_those_of_torch_whether_or_not_a_row_has_a_gradient() -> None:
    weights, means, squares = rows(0), rows(1), rows(2)
    for moment in (means, squares):
        for part in moment:
            part[:] = 0
    parameters = [torch.nn.Parameter(torch.from_numpy(part.copy())) for part in weights[:3]]
    adam = torch.optim.Adam(parameters, lr=1e-2, betas=(0.8, 0.95))
    norms, touched = np.empty((6, 2), np.float32), np.array([True, False, True, True, False, True])
    copies, wanted_copies = (CopyArrays(np.ones(10, np.float32), *empty_copies()) for _ in range(2))
    for step in range(1, 11):
        gradients = rows(10 + step)
        for part in gradients[:3]:
            part[~touched] = 0
        for parameter, part in zip(parameters, gradients[:3], strict=True):
            parameter.grad = torch.from_numpy(0.25 * part)
        adam.step()
        numbers = (0.25, 0.8, 0.2, 0.95, 0.05, 1e-2 / (1 - 0.8**step), (1 - 0.95**step) ** -0.5, 1e-8)
        update(weights, gradients, means, squares, touched, np.array(numbers, np.float32), norms, copies, 0, 6)
        touched = ~touched if step == 5 else touched
    for parameter, part in zip(parameters, weights[:3], strict=True):
        torch.testing.assert_close(torch.from_numpy(part), parameter.detach(), rtol=2e-6, atol=1e-7)
    wanted = torch.from_numpy(weights.dec).view(6, 2, 5).norm(dim=-1)
    torch.testing.assert_close(torch.from_numpy(norms), wanted)
    again = np.empty_like(norms)
    norms_of(weights.dec, again, 0, 6)
    assert np.array_equal(again, norms)
    mirror(weights.enc, *wanted_copies, 0, 6)
    assert all(np.array_equal(left, right) for left, right in zip(copies, wanted_copies, strict=True))
