import pytest
import torch

from featdiff.config.crosscoder import ReLU
from featdiff.crosscoder.kernels.cpu.step import Cpu
from featdiff.crosscoder.kernels.cpu.threads import Workers
from featdiff.crosscoder.kernels.parameter_rows import Rows
from featdiff.crosscoder.kernels.sparse_step import SparseStep
from featdiff.crosscoder.step import kernel_for


def chosen(device: str, dtype: torch.dtype) -> SparseStep | None:
    enc, dec = torch.zeros(2, 4, 6, device=device, dtype=dtype)
    weights = Rows(enc, dec, enc.new_zeros(4), enc.new_zeros(6), None)
    return kernel_for(ReLU(), weights, weights, 2, Workers(1))


def test_a_cpu_has_a_kernel_for_float32_alone() -> None:
    assert isinstance(chosen("cpu", torch.float32), Cpu)
    assert chosen("cpu", torch.float64) is None


def test_a_device_without_a_kernel_is_left_to_torch() -> None:
    assert chosen("meta", torch.float32) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_has_a_kernel_of_its_own() -> None:
    kernel = chosen("cuda", torch.float32)
    assert type(kernel).__name__ == "Triton" and isinstance(kernel, SparseStep)
