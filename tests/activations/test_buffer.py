"""Laws of the shuffle buffer: what was put is found in its slots until they are released."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from featdiff.activations.buffer import Buffer

CPU = torch.device("cpu")


def activations(tokens: Tensor) -> Tensor:
    return tokens[:, None, None].float() + torch.tensor([[0.0, 0.25], [0.5, 0.75]])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 100)), max_size=20))
def test_what_is_in_the_buffer_is_what_was_put_whatever_came_and_went(moves: list[tuple[int, int]]) -> None:
    buffer, kept, number = Buffer(17, 2, 2, CPU), list[tuple[Tensor, Tensor]](), 0
    for size, which in moves:
        if size > buffer.room or (kept and which % 2):
            slots, _ = kept.pop(which % len(kept))
            buffer.release(slots)
            continue
        tokens = torch.arange(number, number + size)
        number += size
        kept.append((buffer.put(activations(tokens), tokens), tokens))
    for slots, tokens in kept:
        assert torch.equal(buffer.tokens[slots], tokens)
        assert torch.equal(buffer.values[slots], activations(tokens))
    used = torch.cat([slots for slots, _ in kept]) if kept else torch.empty(0)
    assert len(used.unique()) == len(used) == 17 - buffer.room


def test_an_empty_buffer_begins_anew_and_its_end_is_memory_of_its_own() -> None:
    buffer = Buffer(5, 1, 1, CPU)
    slots = buffer.put(torch.ones(5, 1, 1), torch.arange(5))
    for slot in slots.flip(0).split(2):
        buffer.release(slot)
    assert buffer.put(torch.full((2, 1, 1), 7.0), torch.arange(2)).tolist() == [0, 1]
    buffer.end(2)[:] = 9.0
    assert buffer.values.flatten().tolist() == [7, 7, 9, 9, 1]


def test_more_than_there_is_room_for_is_never_put() -> None:
    with pytest.raises(AssertionError, match="more activations than the buffer has room for"):
        Buffer(3, 1, 1, CPU).put(torch.zeros(4, 1, 1), torch.arange(4))
