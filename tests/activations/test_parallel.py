"""A stream that several processes make together is the stream of one process; here threads stand for the processes."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from featdiff.activations.buffer import Buffer
from featdiff.activations.parallel import ModelParallel, ResidualSource, Shares, spread_names
from featdiff.activations.stream import Activations, ActivationStream, StreamState
from featdiff.config.study import ActivationSettings
from featdiff.data.corpus import Corpus

Result = TypeVar("Result")
ROWS, CONTEXT, D_MODEL = 23, 10, 4


@dataclass(frozen=True)
class Thread(Shares):
    """One of the threads that share a stream."""

    barrier: threading.Barrier
    table: dict[int, Tensor]
    rank: int
    count: int

    def sum(self, partial: Tensor) -> Tensor:
        self.table[self.rank] = partial.clone()
        self.barrier.wait(timeout=20)
        partial.copy_(torch.stack([self.table[rank] for rank in range(self.count)]).sum(dim=0))
        self.barrier.wait(timeout=20)
        return partial


def together(count: int, work: Callable[[Shares], Result]) -> list[Result]:
    """What `work` gives in each of `count` threads."""
    barrier, table = threading.Barrier(count), dict[int, Tensor]()
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda rank: work(Thread(barrier, table, rank, count)), range(count)))


class Numbered:
    """Two models whose activations are made from the token; it notes the tokens that it was given."""

    names = ("base", "rl")
    d_model = D_MODEL

    def __init__(self, factor: float = 1.0) -> None:
        self.read: list[Tensor] = []
        self.factor = factor

    def residuals(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        assert len(input_ids), "an empty forward pass"
        self.read.append(input_ids.flatten())
        angle = input_ids.float()[..., None, None] / 1000
        norms = self.factor * torch.tensor([3.0, 5.0])[:, None]
        sink = torch.where(input_ids == 57, 1000.0, 1.0)[..., None, None]
        return sink * norms * torch.cat((angle.sin(), angle.cos(), 0 * angle, 0 * angle), dim=-1)


def stream(
    shares: Shares,
    lineup: ResidualSource,
    *,
    rows_per_chunk: int = 4,
    batch_size: int = 7,
    epochs: int = 2,
    **options: str,
) -> ActivationStream:
    ids = torch.arange(ROWS * CONTEXT, dtype=torch.int32).view(ROWS, CONTEXT)
    start = torch.zeros(ROWS, CONTEXT, dtype=torch.bool)
    start[:, [0, 4]] = True
    memory = (rows_per_chunk * CONTEXT + batch_size) * 4 * 2 * D_MODEL
    settings = ActivationSettings.model_validate({"batch_size": 2, "buffer_mib": memory, "scale_tokens": 60, **options})
    corpus = Corpus(ids, start)
    return ActivationStream(lineup, corpus, settings, batch_size=batch_size, epochs=epochs, seed=0, shares=shares)


@pytest.fixture(autouse=True)
def bytes_for_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers are given in bytes here: a MiB holds more than these tests need."""
    monkeypatch.setattr("featdiff.activations.stream.MIB", 1)


def same_batch(shares: tuple[Activations, ...], whole: Activations) -> bool:
    """Whether the shares together are the batch, whatever the order of their tokens."""
    tokens = torch.cat([share.tokens for share in shares])
    values = torch.cat([share.values for share in shares])
    order, wanted = tokens.argsort(), whole.tokens.argsort()
    return torch.equal(tokens[order], whole.tokens[wanted]) and torch.equal(values[order], whole.values[wanted])


def same_state(one: StreamState, other: StreamState) -> bool:
    pairs = zip(one.tensors().values(), other.tensors().values(), strict=True)
    return all(torch.equal(here, there) for here, there in pairs)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize(
    "rows_per_chunk, batch_size, prefetch", [(2, 50, "off"), (4, 1, "on"), (7, 7, "on"), (23, 7, "off")]
)
def test_the_shares_of_a_batch_are_the_batch_and_the_models_read_each_row_once(
    count: int, rows_per_chunk: int, batch_size: int, prefetch: str
) -> None:
    lineups = [Numbered() for _ in range(count)]
    chosen = {"rows_per_chunk": rows_per_chunk, "batch_size": batch_size, "prefetch": prefetch}
    alone = list(stream(Shares(), Numbered(), **chosen).batches())

    def served(shares: Shares) -> list[tuple[Activations, StreamState]]:
        made = stream(shares, lineups[shares.rank], **chosen)
        lineups[shares.rank].read.clear()  # what the calibration read
        return list(made.batches())

    shared = together(count, served)
    for parts, (whole, after) in zip(zip(*shared, strict=True), alone, strict=True):
        assert same_batch(tuple(part for part, _ in parts), whole)
        assert all(same_state(state, after) for _, state in parts)
    read = torch.cat([part for lineup in lineups for part in lineup.read])
    epochs = 1 if rows_per_chunk == ROWS else 2
    assert torch.equal(read.sort().values, torch.arange(ROWS * CONTEXT).repeat_interleave(epochs))


@pytest.mark.parametrize("now", [1, 2, 4])
def test_another_number_of_processes_goes_on_from_any_state(now: int) -> None:
    shared = together(3, lambda shares: list(stream(shares, Numbered()).batches()))
    states = [state for _, state in shared[0]]
    batches = list(stream(Shares(), Numbered()).batches())
    for step in range(0, len(states) - 1, 11):
        rest = together(now, lambda shares, step=step: list(stream(shares, Numbered()).batches(states[step])))
        for parts, (whole, _) in zip(zip(*rest, strict=True), batches[step + 1 :], strict=True):
            assert same_batch(tuple(part for part, _ in parts), whole)


def test_each_process_keeps_its_share_of_the_buffer_and_the_counts_are_those_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capacities: list[int] = []

    class Noted(Buffer):
        def __init__(self, capacity: int, *rest: int | torch.device) -> None:
            capacities.append(capacity)
            super().__init__(capacity, *rest)  # pyright: ignore[reportArgumentType] -- passed on as they came

    monkeypatch.setattr("featdiff.activations.stream.Buffer", Noted)

    def counted(shares: Shares) -> tuple[int, ...]:
        made = stream(shares, Numbered(), rows_per_chunk=12)
        assert sum(1 for _ in made.batches()) == 2 * -(-183 // 7)
        return (made.counts.seen, made.counts.first_dropped, made.counts.sinks_dropped, made.counts.kept)

    assert together(3, counted) == [(460, 92, 2, 366)] * 3
    assert capacities == [7 + 4 * CONTEXT] * 3


def test_all_processes_take_the_numbers_of_the_first() -> None:
    """Another machine may round differently."""
    found = together(3, lambda shares: stream(shares, Numbered(1 + shares.rank * 1e-6)).calibration)
    alone = stream(Shares(), Numbered()).calibration
    for calibration in found:
        assert torch.equal(calibration.scale, alone.scale)
        assert torch.equal(calibration.largest_norm, alone.largest_norm)


@dataclass(frozen=True)
class Some:
    """Some of the numbered models; each notes how often it runs."""

    names: tuple[str, ...]
    runs: dict[str, int]
    d_model: int = D_MODEL

    def residuals(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        for name in self.names:
            self.runs[name] = self.runs.get(name, 0) + input_ids.numel()
        return Numbered().residuals(input_ids)[:, :, [Numbered.names.index(name) for name in self.names]]


@pytest.mark.parametrize("rows_per_chunk", [1, 5, 23])
def test_models_that_lie_with_different_processes_give_the_same_batches(rows_per_chunk: int) -> None:
    runs: dict[str, int] = {}

    def served(shares: Shares) -> list[tuple[Activations, StreamState]]:
        own = Some(spread_names(Numbered.names, shares), runs)
        made = stream(
            shares, ModelParallel(Numbered.names, own, shares), rows_per_chunk=rows_per_chunk, epochs=1, prefetch="on"
        )
        runs.update(dict.fromkeys(own.names, 0))  # without those of the calibration
        return list(made.batches())

    alone = list(stream(Shares(), Numbered(), rows_per_chunk=rows_per_chunk, epochs=1).batches())
    for parts, (whole, after) in zip(zip(*together(2, served), strict=True), alone, strict=True):
        assert same_batch(tuple(part for part, _ in parts), whole)
        assert all(same_state(state, after) for _, state in parts)
    assert runs == {"base": ROWS * CONTEXT, "rl": ROWS * CONTEXT}


def test_models_are_dealt_out_and_a_process_without_one_is_refused() -> None:
    names = tuple("abcdefg")
    held = together(3, lambda shares: spread_names(names, shares))
    assert held == [("a", "d", "g"), ("b", "e"), ("c", "f")]
    with pytest.raises(ValueError, match="divides 2 models among 3 processes; start at most 2"):
        together(3, lambda shares: spread_names(names[:2], shares))
