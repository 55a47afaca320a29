"""Data parallelism: several processes make one stream, each running the models over rows of its own."""

from typing import Protocol, runtime_checkable

from jaxtyping import Num
from torch import Tensor


@runtime_checkable
class Shares(Protocol):
    """The processes of one stream."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def count(self) -> int:
        """Number of processes."""
        ...

    def sum(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """Sum, in place, over all processes, each of which calls this."""
        ...


class Whole:
    """One process that makes the whole stream."""

    rank = 0
    count = 1

    def sum(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        return partial
