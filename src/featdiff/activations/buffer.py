"""Shuffle buffer for activations: memory that is allocated once, with a slot per token."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
