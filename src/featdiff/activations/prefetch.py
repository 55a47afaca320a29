"""Prefetching: the next item is made in another thread while this one works on the current one."""

from collections.abc import Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar, cast

import torch

Item = TypeVar("Item")
END = object()


class Ahead(Iterator[Item]):
    """The items of an iterator in their order, the next of which is made by `pool` ahead of time, where there is one.

    What the iterator raises is raised when its item is asked for.
    """

    def __init__(self, items: Iterator[Item], pool: Executor | None) -> None:
        self._items, self._pool = items, pool
        self._coming = self._begun()

    def __next__(self) -> Item:
        item = next(self._items, END) if self._coming is None else self._coming.result()
        if item is END:
            raise StopIteration
        self._coming = self._begun()
        return cast(Item, item)

    def made(self) -> Item | None:
        """The next item if it is made, without waiting; it stays the next. None otherwise."""
        coming = self._coming
        if coming is None or not coming.done() or coming.exception() or coming.result() is END:
            return None
        return cast(Item, coming.result())

    def _begun(self) -> Future[object] | None:
        return None if self._pool is None else self._pool.submit(next, self._items, END)


@contextmanager
def one_thread(wanted: bool) -> Generator[Executor | None]:
    """A thread to work ahead in, where one is wanted; at the end what it has begun is waited for, and no more done.

    It computes with as many threads as this one, so that it rounds alike. Nothing is left to it that could keep the
    program from ending: between items it waits for work, which the interpreter's exit takes for an end.
    """
    if not wanted:
        yield None
        return
    pool = ThreadPoolExecutor(1, "harvest", torch.set_num_threads, (torch.get_num_threads(),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
