"""Threads that share the rows of a step."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Workers:
    """Runs a function over ranges of rows, in so many threads; a range's result must not depend on the others."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = (
            ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) if threads > 1 else None
        )

    def map(self, function: Callable[[int, int], Result], size: int, chunk: int) -> list[Result]:
        """`function(start, stop)` for the ranges of `chunk` rows that make up `size`, in their order."""
        starts = range(0, size, chunk)
        stops = [min(start + chunk, size) for start in starts]
        if self._pool is None or len(stops) == 1:
            return [function(start, stop) for start, stop in zip(starts, stops, strict=True)]
        return list(self._pool.map(function, starts, stops))
