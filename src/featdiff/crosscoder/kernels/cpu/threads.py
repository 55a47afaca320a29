"""Threads that share the rows of a step.

torch's own threads wait for work by spinning, on the cores that ours need. So a step runs in a leading thread in which
torch has one thread, and hands ranges of rows to others like it; only a dense step gives torch all of them.
"""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import get_ident
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Workers:
    """So many threads for one step. Of a single one nothing is made: the work is done where it is asked for."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._leader: int | None = None
        self._first = self._pool(1) if threads > 1 else None
        self._others = self._pool(threads - 1) if threads > 1 else None

    def lead(self, function: Callable[[], Result]) -> Result:
        """`function()` in the leading thread."""
        if self._first is None or get_ident() == self._leader:
            return function()
        return self._first.submit(self._lead, function).result()

    def map(self, function: Callable[[int, int], Result], size: int, chunk: int) -> list[Result]:
        """`function(start, stop)` for the ranges of `chunk` rows that make up `size`, in their order.

        The calling thread takes ranges, too. No range's result may depend on the others.
        """
        ranges = [(start, min(start + chunk, size)) for start in range(0, size, chunk)]
        if self._others is None or len(ranges) == 1:
            return [function(start, stop) for start, stop in ranges]
        places, results = count(), dict[int, Result]()

        def take() -> None:
            while (place := next(places)) < len(ranges):  # one by one, whoever asks
                results[place] = function(*ranges[place])

        helpers = [self._others.submit(take) for _ in range(self.threads - 1)]
        try:
            take()
        finally:
            for helper in helpers:
                helper.result()
        return [results[place] for place in range(len(ranges))]

    @contextmanager
    def given_to_torch(self) -> Generator[None]:
        """Within the block, torch's products in this thread use all threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(max(before, self.threads))
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _lead(self, function: Callable[[], Result]) -> Result:
        self._leader = get_ident()
        return function()

    def _pool(self, threads: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(threads, "featdiff", initializer=torch.set_num_threads, initargs=(1,))
