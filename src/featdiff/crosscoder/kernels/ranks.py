"""What a training step shares with other processes; a single process shares nothing."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor


@runtime_checkable
class Ranks(Protocol):
    """The processes of one crosscoder, some with other tokens, some with other features."""

    def sum_over_features(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """Sum, in place, over the processes that hold other features of the same tokens."""
        ...

    def sum_over_tokens(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """Sum, in place, over the processes that hold other tokens for the same features."""
        ...

    def cut(self, contributions: Float[Tensor, " some"] | None, count: int, guess: float) -> Float[Tensor, ""] | None:
        """The `count`-th largest positive contribution over all processes, or the smallest where fewer are positive.

        `contributions` holds at least all those that exceed `guess`, or is None where they could not be found. None
        where that is so in any process, and where fewer than `count` exceed a guess > 0, so that the cut may lie below
        it. inf where no contribution is positive.
        """
        ...


class Alone:
    """One process that holds all tokens and all features."""

    def sum_over_features(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        return partial

    def sum_over_tokens(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        return partial

    def cut(self, contributions: Float[Tensor, " some"] | None, count: int, guess: float) -> Float[Tensor, ""] | None:
        return None if contributions is None else smallest_of_largest(contributions, count, guess)


def smallest_of_largest(contributions: Float[Tensor, " some"], count: int, guess: float) -> Float[Tensor, ""] | None:
    """The cut among all contributions that exceed `guess`, as `Ranks.cut` gives it."""
    contributions = contributions[contributions > max(guess, 0.0)]
    if len(contributions) < count and guess > 0:
        return None
    if not len(contributions):
        return contributions.new_tensor(torch.inf)
    return contributions.topk(min(count, len(contributions)), sorted=False).values.min()
