"""How a training step is computed, by the share of active pairs (token, feature) of the step before.

A screen in low precision finds the active pairs where few are; where more are, a float32 product finds them and sparse
products follow; else the step is dense. Measured: docs/benchmarks.md. Nothing here imports torch, so that the estimate
of a study's costs goes by the same numbers.
"""

from typing import Literal, get_args

Path = Literal["reference", "dense", "compact", "screened"]
"""How a step is computed: dense autograd; five products; active pairs from a float32 product; active pairs from a
screen in low precision."""
PATHS: tuple[Path, ...] = get_args(Path)

CPU_SCREENED = 0.03
"""Share of active pairs below which an int8 screen pays, on CPUs that multiply int8 fast."""
CPU_COMPACT = 0.15
"""Share below which a float32 product with sparse products after it pays; above it the step is dense."""
GPU_SCREENED = 0.065
"""Share below which a bfloat16 screen pays on a GPU (H100). A float32 product costs so much there that between a screen
and a dense step nothing pays."""
HYSTERESIS = 0.15
"""A path is left only when the share is so much beyond its border."""


def next_path(share: float, path: Path, *, on_gpu: bool, fast_int8: bool) -> Path:
    """The path of the step after one on `path` with a `share` of active pairs."""
    screened, compact = (GPU_SCREENED, GPU_SCREENED) if on_gpu else (CPU_SCREENED, CPU_COMPACT)

    def below(border: float, inside: bool) -> bool:
        return share < border * (1 + HYSTERESIS if inside else 1 - HYSTERESIS)

    if not below(compact, inside=path in ("compact", "screened")):
        return "dense"
    return "screened" if (on_gpu or fast_int8) and below(screened, inside=path == "screened") else "compact"
