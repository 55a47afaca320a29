"""Shuffle buffer for activations, with a slot per token, and the writing of a chunk of the stream into it."""

from dataclasses import astuple, dataclass
from operator import add

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.activations.parallel import Shares
from featdiff.activations.prefetch import Ahead


class Buffer:
    """Slots for `capacity` tokens. A slot that was released may be used again at once."""

    values: Float[Tensor, "capacity models d_model"]
    tokens: Int[Tensor, " capacity"]

    def __init__(self, capacity: int, models: int, d_model: int, device: torch.device) -> None:
        self.values = torch.empty(capacity, models, d_model, device=device)
        self.tokens = torch.empty(capacity, dtype=torch.long, device=device)
        self._free = [torch.arange(capacity, device=device)]
        self.room = capacity

    def put(
        self, values: Float[Tensor, "tokens models d_model"], tokens: Int[Tensor, " tokens"]
    ) -> Int[Tensor, " tokens"]:
        """Store activations; returns their slots."""
        assert len(tokens) <= self.room, "more activations than the buffer has room for"
        free = self._free[0] if len(self._free) == 1 else torch.cat(self._free)
        slots, self._free = free[: len(tokens)], [free[len(tokens) :]]
        self.values[slots], self.tokens[slots] = values.to(self.values.device), tokens.to(self.tokens.device)
        self.room -= len(tokens)
        return slots

    def release(self, slots: Int[Tensor, " tokens"]) -> None:
        """Free slots. A buffer that is empty again begins anew with its first slot."""
        self.room += len(slots)
        if self.room == len(self.tokens):
            self._free = [torch.arange(self.room, device=self.tokens.device)]
        else:
            self._free.append(slots)

    def end(self, tokens: int) -> Float[Tensor, "tokens models d_model"]:
        """Memory for raw activations behind what has been put into an empty buffer; what is put next overwrites it."""
        start = len(self.tokens) - self.room
        return self.values[start : start + tokens]


@dataclass(frozen=True)
class StreamCounts:
    """Tokens of a run so far: `seen` by the models, dropped as the start of a document or as a sink, and kept."""

    seen: int = 0
    first_dropped: int = 0
    sinks_dropped: int = 0
    kept: int = 0

    def plus(self, other: "StreamCounts") -> "StreamCounts":
        return StreamCounts(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Kept:
    """Activations that are kept of one forward pass."""

    values: Float[Tensor, "tokens models d_model"]
    tokens: Int[Tensor, " tokens"]
    rows: Int[Tensor, " sequences"]
    """Tokens kept of each row."""
    counts: StreamCounts


class Filling:
    """Chunk that is being written into the buffer, in the order in which this process harvests its rows."""

    def __init__(self, parts: Ahead[Kept], shares: Shares) -> None:
        self._parts, self._shares = parts, shares
        self._slots, self._rows, self._counts = list[Tensor](), list[Tensor](), StreamCounts()

    def top_up(self, buffer: Buffer) -> None:
        """Take over what has been harvested, as far as there is room for it; do not wait."""
        while (part := self._parts.made()) is not None and len(part.tokens) <= buffer.room:
            self._put(buffer, next(self._parts))

    def finish(
        self,
        buffer: Buffer,
        values: Float[Tensor, "carried models d_model"],
        tokens: Int[Tensor, " carried"],
        rows: int,
    ) -> tuple[Int[Tensor, " all"], StreamCounts]:
        """Slots of the tokens carried over and of the chunk, in the order of its `rows`, and the counts of the chunk.

        A token that lies with another process has the slot -1.
        """
        device, own = buffer.tokens.device, slice(self._shares.rank, None, self._shares.count)
        carried = buffer.put(values[own], tokens[own])
        for part in self._parts:
            self._put(buffer, part)
        kept, mine = torch.zeros(2, rows, dtype=torch.long, device=device)
        mine[own] = 1
        if self._rows:
            kept[own] = torch.cat(self._rows).to(device)
        here = mine.bool().repeat_interleave(self._shares.sum(kept))
        slots = torch.full((len(tokens) + len(here),), -1, device=device)
        slots[: len(tokens)][own] = carried
        if self._slots:
            slots[len(tokens) :][here] = torch.cat(self._slots)
        counts = torch.tensor(astuple(self._counts), device=device)
        return slots, StreamCounts(*self._shares.sum(counts).tolist())

    def _put(self, buffer: Buffer, part: Kept) -> None:
        self._slots.append(buffer.put(part.values, part.tokens))
        self._rows.append(part.rows)
        self._counts = self._counts.plus(part.counts)


def own_slots(slots: Int[Tensor, " slots"]) -> Int[Tensor, " own"]:
    """Slots of the tokens that lie with this process."""
    return slots[slots >= 0]
