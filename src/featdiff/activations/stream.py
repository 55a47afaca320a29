"""The stream: activations of a lineup, token by token in random order, each kept token once an epoch.

1. Two numbers per model are estimated on the first rows of the corpus: the norm beyond which a token is an attention
   sink, and the scale, so that raw = scale x normalised and a normalised activation has mean norm sqrt(d_model).
2. The corpus is read in chunks of rows whose activations fit the buffer. The starts of documents and the sinks of any
   model are dropped.
3. The buffer is served in random order, batch by batch. What is left at its end, less than a batch, joins the next
   chunk; at the end of an epoch it is served as a smaller batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import ceil
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.activations.corpus import Corpus
from featdiff.study import ActivationSettings

FLOAT_BYTES = 4
MIB = 1 << 20


@runtime_checkable
class Residuals(Protocol):
    """What a stream needs of a lineup."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def d_model(self) -> int: ...
    def residuals(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor: ...


@dataclass(frozen=True)
class Activations:
    """Raw residual streams of the same tokens in several models, float32."""

    models: tuple[str, ...]
    values: Float[Tensor, "tokens models d_model"]
    tokens: Int[Tensor, " tokens"]
    """Token ids."""


@dataclass(frozen=True)
class StreamCounts:
    """Tokens of a run so far: `seen` by the models, dropped as the start of a document or as a sink, and kept."""

    seen: int = 0
    first_dropped: int = 0
    sinks_dropped: int = 0
    kept: int = 0

    def plus(self, other: "StreamCounts") -> "StreamCounts":
        return StreamCounts(
            self.seen + other.seen,
            self.first_dropped + other.first_dropped,
            self.sinks_dropped + other.sinks_dropped,
            self.kept + other.kept,
        )


@dataclass(frozen=True)
class Calibration:
    """What is estimated once from the beginning of the corpus, for each model."""

    models: tuple[str, ...]
    largest_norm: Float[Tensor, " models"]
    """Norm beyond which a token is a sink, in raw units: `sink_multiple` x the median norm."""
    scale: Float[Tensor, " models"]
    """Mean norm of kept tokens / sqrt(d_model): raw = scale x normalised."""


@dataclass(frozen=True)
class StreamState:
    """Where a stream stands between two batches. The batches from here on are those that would have followed."""

    epoch: int
    chunk: int
    offset: int
    """Batches of the chunk that have been served."""
    counts: StreamCounts
    """Counts before this chunk."""
    values: Float[Tensor, "carried models d_model"]
    """Activations that the chunk took over from the one before."""
    tokens: Int[Tensor, " carried"]

    def tensors(self) -> dict[str, Tensor]:
        """The state as tensors on the CPU, to be saved; `from_tensors` reads them."""
        counts = self.counts
        place = [self.epoch, self.chunk, self.offset]
        seen = [counts.seen, counts.first_dropped, counts.sinks_dropped, counts.kept]
        return {
            "place": torch.tensor(place),
            "counts": torch.tensor(seen),
            "values": self.values.cpu().contiguous(),
            "tokens": self.tokens.cpu().contiguous(),
        }

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> "StreamState":
        """The state that `tensors` wrote."""
        epoch, chunk, offset = tensors["place"].tolist()
        counts = StreamCounts(*tensors["counts"].tolist())
        return StreamState(epoch, chunk, offset, counts, tensors["values"], tensors["tokens"])


class ActivationStream:
    """Activations of a lineup over a corpus, shuffled, `epochs` times; deterministic given the seed.

    `counts` tells what has been seen and dropped since the run began. Raises ValueError for activations that are not
    finite, naming the model, and when no token is kept.
    """

    models: tuple[str, ...]
    d_model: int
    scale: Float[Tensor, " models"]
    calibration: Calibration
    counts: StreamCounts

    def __init__(
        self,
        lineup: Residuals,
        corpus: Corpus,
        settings: ActivationSettings,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
    ) -> None:
        self._lineup, self._corpus, self._settings = lineup, corpus, settings
        self._batch_size, self._epochs, self._seed = batch_size, epochs, seed
        self._rows_per_chunk = _rows_per_chunk(lineup, corpus, settings, batch_size)
        self._chunks = ceil(len(corpus.input_ids) / self._rows_per_chunk)
        self.models, self.d_model = lineup.names, lineup.d_model
        self.calibration = calibrate(lineup, corpus, settings)
        self.scale = self.calibration.scale
        self.counts = StreamCounts()

    @property
    def steps(self) -> int:
        """Batches of the whole run, at most: the sinks, known only once seen, are counted as kept.

        Schedules are laid over this number; the run ends when the tokens do, under one per cent earlier as a rule.
        """
        tokens = self._corpus.input_ids.numel()
        if self._settings.drop_first:
            tokens -= int(self._corpus.document_start.sum())
        return self._epochs * ceil(tokens / self._batch_size)

    def batches(self, state: StreamState | None = None) -> Iterator[tuple[Activations, StreamState]]:
        """The batches from `state` on, or from the beginning, each with the state after it."""
        state = self._beginning() if state is None else state
        buffer = _Buffer.allocate(self._batch_size + self._rows_per_chunk * self._corpus.input_ids.shape[1], self)
        filled: StreamCounts | None = None
        while state.epoch < self._epochs:
            if self._chunks > 1 or filled is None:
                filled = self._fill(buffer, state)
            self.counts = state.counts.plus(filled)
            order = _permutation(buffer.size, f"{self._seed} {state.epoch} {state.chunk}").to(self.scale.device)
            served = self._served(state, buffer.size)
            following = self._following(state, buffer, order[served * self._batch_size :])
            for offset in range(state.offset, served):
                batch = order[offset * self._batch_size : (offset + 1) * self._batch_size]
                after = replace(state, offset=offset + 1) if offset + 1 < served else following
                yield Activations(self.models, buffer.values[batch], buffer.tokens[batch]), after
            state = following

    def _beginning(self) -> StreamState:
        nothing = _Buffer.allocate(0, self)
        return StreamState(0, 0, 0, StreamCounts(), nothing.values, nothing.tokens)

    def _fill(self, buffer: "_Buffer", state: StreamState) -> StreamCounts:
        """Put what is carried and the kept tokens of the state's chunk into the buffer."""
        # A corpus that fits the buffer is harvested once for all epochs, so its rows keep their order.
        epoch = state.epoch if self._chunks > 1 else 0
        rows = _permutation(len(self._corpus.input_ids), f"{self._seed} {epoch}")
        rows = rows[state.chunk * self._rows_per_chunk : (state.chunk + 1) * self._rows_per_chunk]
        counts = StreamCounts()
        buffer.size = 0
        buffer.append(state.values, state.tokens)
        for part in rows.split(self._settings.batch_size):
            activations, counted = _kept(self._lineup, self._corpus.select(part), self.calibration, self._settings)
            buffer.append(activations.values, activations.tokens)
            counts = counts.plus(counted)
        return counts

    def _served(self, state: StreamState, tokens: int) -> int:
        """Batches that a buffer of so many tokens gives; only the last of an epoch may be smaller."""
        if state.chunk == self._chunks - 1:
            return ceil(tokens / self._batch_size)
        return tokens // self._batch_size

    def _following(self, state: StreamState, buffer: "_Buffer", carried: Int[Tensor, " carried"]) -> StreamState:
        """The state at the beginning of the next chunk."""
        values, tokens = buffer.values[carried], buffer.tokens[carried]
        if state.chunk == self._chunks - 1:
            return StreamState(state.epoch + 1, 0, 0, self.counts, values, tokens)
        return StreamState(state.epoch, state.chunk + 1, 0, self.counts, values, tokens)


def calibrate(lineup: Residuals, corpus: Corpus, settings: ActivationSettings) -> Calibration:
    """Sink threshold and scale of each model, from the first `scale_tokens` tokens of the corpus (in whole rows).

    Raises ValueError for activations that are not finite or all zero, and when every token would be dropped.
    """
    rows = torch.arange(min(len(corpus.input_ids), ceil(settings.scale_tokens / corpus.input_ids.shape[1])))
    parts = [corpus.select(part) for part in rows.split(settings.batch_size)]
    norms = torch.cat([_norms(_residuals(lineup, part), lineup)[~_first(part, settings)] for part in parts])
    if not len(norms):
        raise ValueError(
            "every token of the corpus begins a document; give longer documents, or set drop_first to false"
        )
    median = norms.median(dim=0).values
    if not median.all():
        name = lineup.names[int((median == 0).nonzero()[0])]
        raise ValueError(f"the activations of model {name!r} are zero; check its weights")
    largest_norm = settings.sink_multiple * median
    kept = norms[(norms <= largest_norm).all(dim=-1)]
    if not len(kept):
        raise ValueError(f"every token counts as a sink; set sink_multiple above {settings.sink_multiple:g}")
    return Calibration(lineup.names, largest_norm, (kept.double().mean(dim=0) / lineup.d_model**0.5).float())


def collect(
    lineup: Residuals,
    corpus: Corpus,
    calibration: Calibration,
    settings: ActivationSettings,
    limit: int | None = None,
) -> Iterator[Activations]:
    """The kept tokens of a corpus in its order, at most `limit` of them, a forward pass at a time.

    For tokens that are measured rather than trained on; the calibration is that of the training stream.
    """
    left = corpus.input_ids.numel() if limit is None else limit
    for part in torch.arange(len(corpus.input_ids)).split(settings.batch_size):
        if left <= 0:
            return
        kept, _ = _kept(lineup, corpus.select(part), calibration, settings)
        yield Activations(kept.models, kept.values[:left], kept.tokens[:left])
        left -= len(kept.tokens)


# ------------------------------------------------------------------ harvest


def _kept(
    lineup: Residuals, corpus: Corpus, calibration: Calibration, settings: ActivationSettings
) -> tuple[Activations, StreamCounts]:
    """The activations of the tokens that are neither dropped as a start nor a sink in any model."""
    values = _residuals(lineup, corpus)
    norms = _norms(values, lineup)
    first = _first(corpus, settings).to(values.device)
    sink = (norms > calibration.largest_norm.to(values.device)).any(dim=-1) & ~first
    keep = ~(first | sink)
    counts = torch.stack((first.sum(), sink.sum(), keep.sum())).tolist()
    tokens = corpus.input_ids.to(values.device, torch.long)[keep]
    return Activations(lineup.names, values[keep], tokens), StreamCounts(keep.numel(), *counts)


@torch.no_grad()
def _residuals(lineup: Residuals, corpus: Corpus) -> Float[Tensor, "sequences context models d_model"]:
    return lineup.residuals(corpus.input_ids.long(), position_ids=corpus.position_ids)


def _norms(
    values: Float[Tensor, "sequences context models d_model"], lineup: Residuals
) -> Float[Tensor, "sequences context models"]:
    norms = torch.linalg.vector_norm(values, dim=-1)
    finite = norms.isfinite().all(dim=0).all(dim=0)
    if not finite.all():
        name = lineup.names[finite.tolist().index(False)]
        raise ValueError(
            f"the activations of model {name!r} hold NaN or infinity; check its weights, "
            "or set lineup.dtype to bfloat16 or float32"
        )
    return norms


def _first(corpus: Corpus, settings: ActivationSettings) -> Bool[Tensor, "sequences context"]:
    return corpus.document_start if settings.drop_first else torch.zeros_like(corpus.document_start)


# ------------------------------------------------------------------ buffer


@dataclass
class _Buffer:
    """Room for a chunk, allocated once; the first `size` tokens are in use."""

    values: Float[Tensor, "capacity models d_model"]
    tokens: Int[Tensor, " capacity"]
    size: int = 0

    @staticmethod
    def allocate(capacity: int, stream: ActivationStream) -> "_Buffer":
        device = stream.scale.device
        values = torch.empty(capacity, len(stream.models), stream.d_model, device=device)
        return _Buffer(values, torch.empty(capacity, dtype=torch.long, device=device))

    def append(self, values: Float[Tensor, "tokens models d_model"], tokens: Int[Tensor, " tokens"]) -> None:
        end = self.size + len(tokens)
        self.values[self.size : end] = values
        self.tokens[self.size : end] = tokens
        self.size = end


def _rows_per_chunk(lineup: Residuals, corpus: Corpus, settings: ActivationSettings, batch_size: int) -> int:
    """Rows whose activations fit the buffer beside a carried batch: at least one, else whole forward passes."""
    rows, context = corpus.input_ids.shape
    tokens = settings.buffer_mib * MIB // (FLOAT_BYTES * len(lineup.names) * lineup.d_model)
    fitting = max(1, (tokens - batch_size) // context)
    if fitting >= rows:
        return rows
    return max(fitting - fitting % settings.batch_size, min(fitting, settings.batch_size))


def _permutation(size: int, key: str) -> Int[Tensor, " size"]:
    """A permutation that depends on the key alone."""
    seed = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") >> 1
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))
