"""Data parallelism: several processes make one stream, each running the models over rows of its own."""

from jaxtyping import Num
from torch import Tensor


class Shares:
    """The processes of one stream: here a single one, which makes all of it. What stands for several derives from
    it."""

    rank: int = 0
    """Number of this process."""
    count: int = 1
    """Number of processes."""

    def sum(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """Sum, in place, over all processes, each of which calls this."""
        return partial
