"""Faster float32 products on CPUs where torch's default library is slow, and only where they stay float32.

torch can send float32 products to oneDNN by a switch that *allows* bfloat16. On CPUs without bfloat16 matrix units
oneDNN computes in full float32 all the same, on AMD about twice as fast as the default library; on CPUs with such units
it would really round to bfloat16. So the switch is thrown only after a probe found it exact.
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch

LARGEST_ERROR = 1e-5
"""Relative difference from the default product beyond which the switch is refused; bfloat16 differs by 1e-3 and
more."""


@contextmanager
def float32_products(fast: bool) -> Generator[None]:
    """Within the block, float32 products on the CPU run through oneDNN if `fast`."""
    backend = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue] -- torch adds it at import
    before = backend.fp32_precision
    if fast:
        backend.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.fp32_precision = before


def fast_products_are_exact(size: int = 512) -> bool:
    """Whether oneDNN's float32 products equal the default's on this CPU.

    Only what is exact counts, never a stopwatch: the same machine must decide the same way every time.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, size, size, generator=generator)
    default = left @ right
    with float32_products(fast=True):
        error = float((left @ right - default).norm() / default.norm())
    return error < LARGEST_ERROR


def fast_int8() -> bool:
    """Whether this CPU multiplies int8 exactly, and faster than float32."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_vnni") or able.get("amx_int8"))
