"""What a training step shares with other processes."""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Num
from torch import Tensor

from featdiff.activations.parallel import Shares


class Ranks(Shares):
    """The processes that train together: here a single one, which shares nothing; `distributed.Grid` is a grid of them.

    Along one axis of the grid they hold other features of the same tokens, along the other axis other tokens for the
    same features. Each method is called by all processes, or by none. Process 0 writes and speaks for all.
    """

    feature_shards: int = 1
    """Processes that share the features; the others share the tokens."""
    device = torch.device("cpu")
    """Where this process sends and receives."""

    def sum_over_features(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """Sum, in place, over the processes that hold other features of the same tokens."""
        return partial

    def sum_over_tokens(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """Sum, in place, over the processes that hold other tokens for the same features."""
        return partial

    def cut(self, contributions: Float[Tensor, " some"] | None, count: int, guess: float) -> Float[Tensor, ""] | None:
        """The `count`-th largest positive contribution over all processes, or the smallest where fewer are positive.

        `contributions` holds at least all those that exceed `guess`, or is None where they could not be found. None
        where that is so in any process, and where fewer than `count` exceed a guess > 0, so that the cut may lie below
        it. inf where no contribution is positive.
        """
        lacking = contributions is None
        some = torch.empty(0, device=self.device) if contributions is None else contributions
        some = some[some > max(guess, 0.0)]
        processes, found = self.sum(torch.tensor([int(lacking), len(some)], device=some.device)).tolist()
        if processes or (found < count and guess > 0):
            return None
        return self.largest(some, min(count, found)) if found else some.new_tensor(torch.inf)

    def largest(self, some: Float[Tensor, " some"], count: int) -> Float[Tensor, ""]:
        """The `count`-th largest of the positive numbers of all processes, exactly."""
        return some.topk(count, sorted=False).values.min()

    def least_of_largest(self, values: Float[Tensor, "tokens some"], count: int) -> Float[Tensor, " tokens"]:
        """The `count`-th largest value of each token over the processes that hold other features of it, or the smallest
        where there are fewer."""
        return values.topk(min(count, values.shape[1]), dim=1, sorted=False).values.amin(dim=1)

    def tokens_of_row(self, values: Float[Tensor, "tokens ..."]) -> Float[Tensor, "more ..."]:
        """The tokens of all processes that hold other features of the same tokens, in one order for all of them."""
        return values

    def own(self, whole: Tensor, axis: int | None) -> Tensor:
        """The part of a tensor that lies here; `axis` runs over features, None: all of it."""
        return whole

    def whole(self, part: Tensor, axis: int | None) -> Tensor:
        """The tensor of which each process holds its `own`."""
        return part

    def placed(self, part: Num[Tensor, "features ..."]) -> Num[Tensor, "all ..."]:
        """The part as torch.distributed knows it: where features are divided, a DTensor."""
        return part

    def together(self) -> AbstractContextManager[None]:
        """For work of all processes: the loss of one becomes a ValueError of one line that names it."""
        return nullcontext()
