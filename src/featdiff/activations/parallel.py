"""Several processes that make one stream: each with rows of its own, or with models of its own over all rows."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int, Num
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


@runtime_checkable
class ResidualSource(Protocol):
    """Source of residual streams: a lineup, or a cache of one."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def d_model(self) -> int: ...
    def residuals(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor: ...


@dataclass(frozen=True)
class ModelParallel:
    """Models of which each process holds some (`spread_names`); all of them run theirs over the same rows."""

    names: tuple[str, ...]
    own: ResidualSource
    """The models of this process."""
    shares: Shares

    @property
    def d_model(self) -> int:
        return self.own.d_model

    def residuals(
        self,
        input_ids: Int[Tensor, "batch positions"],
        attention_mask: Int[Tensor, "batch positions"] | None = None,
        position_ids: Int[Tensor, "batch positions"] | None = None,
    ) -> Float[Tensor, "batch positions models d_model"]:
        """The residual streams of all models, in all processes, each of which calls this."""
        own = self.own.residuals(input_ids, attention_mask, position_ids)
        room = own.new_zeros(*input_ids.shape, len(self.names), self.d_model)
        room[:, :, [self.names.index(name) for name in self.own.names]] = own
        return self.shares.sum(room)


def spread_names(names: tuple[str, ...], shares: Shares) -> tuple[str, ...]:
    """Those of the models that this process holds; ValueError where there are more processes than models."""
    if shares.count > len(names):
        raise ValueError(
            f"lineup.spread divides {len(names)} models among {shares.count} processes; "
            f"start at most {len(names)}, or leave lineup.spread out"
        )
    return names[shares.rank :: shares.count]
