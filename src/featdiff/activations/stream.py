"""Stream of activations of a lineup, token by token in random order, each kept token once an epoch.

1. Two numbers per model are estimated on the first rows of the corpus: the norm beyond which a token is an attention
   sink, and the scale, so that raw = scale x normalised and a normalised activation has mean norm sqrt(d_model).
2. The corpus is read in chunks of rows whose activations fit the buffer. The starts of documents and the sinks of any
   model are dropped.
3. The buffer is served in random order, batch by batch. What is left at its end, less than a batch, joins the next
   chunk; at the end of an epoch it is served as a smaller batch.
4. While a chunk is served, the next one may be harvested in another thread, into the slots that have been served. The
   batches are the same, to the bit.
5. Of several processes (`Shares`) each takes its share of the rows of every chunk, and serves of every batch the tokens
   that lie with it: together the batches of one process. Only counts and the tokens that a chunk leaves are exchanged.
"""

from collections.abc import Generator, Iterator
from concurrent.futures import Executor
from dataclasses import astuple, dataclass, replace
from hashlib import blake2b
from math import ceil

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.activations.buffer import Buffer, Filling, Kept, StreamCounts, own_slots
from featdiff.activations.parallel import ModelParallel, ResidualSource, Shares
from featdiff.activations.prefetch import Ahead, one_thread
from featdiff.config.study import ActivationSettings
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup

FLOAT_BYTES = 4
MIB = 1 << 20
Values = Float[Tensor, "sequences context models d_model"]


@dataclass(frozen=True, eq=False)
class Activations:
    """Raw residual streams of the same tokens in several models, float32."""

    models: tuple[str, ...]
    values: Float[Tensor, "tokens models d_model"]
    tokens: Int[Tensor, " tokens"]
    """Token ids."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Sink threshold and scale of each model, estimated once from the beginning of the corpus."""

    models: tuple[str, ...]
    largest_norm: Float[Tensor, " models"]
    """Norm beyond which a token is a sink, in raw units: `sink_multiple` x the median norm."""
    scale: Float[Tensor, " models"]
    """Mean norm of kept tokens / sqrt(d_model): raw = scale x normalised."""


@dataclass(frozen=True, eq=False)
class StreamState:
    """Position of a stream between two batches. The batches from here on are those that would have followed."""

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
        """The state as tensors on the CPU, to be saved; `state_from` of a stream reads them."""
        return {
            "place": torch.tensor([self.epoch, self.chunk, self.offset]),
            "counts": torch.tensor(astuple(self.counts)),
            "values": self.values.cpu().contiguous(),
            "tokens": self.tokens.cpu().contiguous(),
        }


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
        lineup: ResidualSource,
        corpus: Corpus,
        settings: ActivationSettings,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        shares: Shares | None = None,
    ) -> None:
        self._lineup, self._corpus, self._settings, self._shares = lineup, corpus, settings, shares or Shares()
        self._batch_size, self._epochs, self._seed = batch_size, epochs, seed
        self._rows_per_chunk = _rows_per_chunk(lineup, corpus, settings, batch_size)
        self._chunks = ceil(len(corpus.input_ids) / self._rows_per_chunk)
        self.models, self.d_model = lineup.names, lineup.d_model
        self.calibration = _agreed(calibrate(lineup, corpus, settings), self._shares)
        self.scale = self.calibration.scale
        self.counts = StreamCounts()

    @staticmethod
    def state_from(tensors: dict[str, Tensor]) -> StreamState:
        """The state whose `tensors` a checkpoint holds."""
        epoch, chunk, offset = tensors["place"].tolist()
        counts = StreamCounts(*tensors["counts"].tolist())
        return StreamState(epoch, chunk, offset, counts, tensors["values"], tensors["tokens"])

    @property
    def steps(self) -> int:
        """Batches of the whole run, at most: the sinks, known only once seen, are counted as kept.

        Schedules are laid over this number; the run ends when the tokens do, under one per cent earlier as a rule.
        """
        return self._epochs * steps_per_epoch(self._corpus, self._settings, self._batch_size)

    def batches(self, state: StreamState | None = None) -> Generator[tuple[Activations, StreamState], None, None]:
        """The batches from `state` on, or from the beginning, each with the state after it.

        Of several processes, each gives its share of every batch, which may be empty; states are the same in all.
        """
        rows = ceil(self._rows_per_chunk / self._shares.count)
        capacity = self._batch_size + rows * self._corpus.input_ids.shape[1]
        buffer = Buffer(capacity, len(self.models), self.d_model, self.scale.device)
        state = StreamState(0, 0, 0, StreamCounts(), buffer.values[:0], buffer.tokens[:0]) if state is None else state
        once = self._chunks == 1
        with one_thread(self._prefetches and not once) as pool:
            filling = self._filling(buffer, state, pool)
            slots, filled = None, StreamCounts()
            while state.epoch < self._epochs:
                if slots is None or not once:
                    rows = min(self._rows_per_chunk, len(self._corpus.input_ids) - state.chunk * self._rows_per_chunk)
                    slots, filled = filling.finish(buffer, state.values, state.tokens, rows)
                self.counts = state.counts.plus(filled)
                order = _permutation(len(slots), f"{self._seed} {state.epoch} {state.chunk}").to(self.scale.device)
                # Only the last batch of an epoch may be smaller.
                whole = len(slots) // self._batch_size if state.chunk < self._chunks - 1 else None
                parts = slots[order].split(self._batch_size)[:whole]
                left = slots[order][len(parts) * self._batch_size :]
                following = self._following(state, buffer, left)
                if not once:
                    buffer.release(own_slots(torch.cat((left, *parts[: state.offset]))))
                    filling = self._filling(buffer, following, pool)
                for offset in range(state.offset, len(parts)):
                    own = own_slots(parts[offset])
                    batch = Activations(self.models, buffer.values[own], buffer.tokens[own])
                    if not once:
                        buffer.release(own)
                        filling.top_up(buffer)
                    yield batch, replace(state, offset=offset + 1) if offset + 1 < len(parts) else following
                state = following

    @property
    def _prefetches(self) -> bool:
        """Whether the next chunk is harvested while one is served. Models that take turns need the whole buffer, and
        those that are spread tell each other what they find, which one thread must do."""
        if isinstance(self._lineup, ModelParallel) or (isinstance(self._lineup, Lineup) and self._lineup.turns):
            return False
        wanted = self._settings.prefetch
        return wanted == "on" or (wanted == "auto" and self.scale.device.type != "cpu")

    def _filling(self, buffer: Buffer, start: StreamState, pool: Executor | None) -> Filling:
        """The chunk that begins at `start`."""
        return Filling(Ahead(self._harvest(buffer, start.epoch, start.chunk), pool), self._shares)

    def _harvest(self, buffer: Buffer, epoch: int, chunk: int) -> Iterator[Kept]:
        """The kept tokens of this process's rows of a chunk, a forward pass at a time; nothing after the last epoch."""
        if epoch == self._epochs:
            return
        # A corpus that fits the buffer is harvested once for all epochs, so its rows keep their order.
        order = _permutation(len(self._corpus.input_ids), f"{self._seed} {epoch if self._chunks > 1 else 0}")
        rows = order.split(self._rows_per_chunk)[chunk]
        rank, count, first = self._shares.rank, self._shares.count, 0
        spread = isinstance(self._lineup, ModelParallel)
        corpus = self._corpus.select(rows if spread else rows[rank::count])
        for part, values in _passes(self._lineup, corpus, self._settings, buffer):
            if spread:  # every process has run its models over all rows
                own = torch.arange((rank - first) % count, len(values), count)
                first += len(values)
                part, values = part.select(own), values[own]
            yield _kept(self._lineup, part, values, self.calibration, self._settings)

    def _following(self, state: StreamState, buffer: Buffer, carried: Int[Tensor, " carried"]) -> StreamState:
        """The state at the beginning of the next chunk."""
        values = torch.zeros(len(carried), *buffer.values.shape[1:], device=buffer.values.device)
        tokens = torch.zeros_like(carried)
        here = carried >= 0
        values[here], tokens[here] = buffer.values[carried[here]], buffer.tokens[carried[here]]
        values, tokens = self._shares.sum(values), self._shares.sum(tokens)
        epochs, chunk = divmod(state.chunk + 1, self._chunks)
        return StreamState(state.epoch + epochs, chunk, 0, self.counts, values, tokens)


def steps_per_epoch(corpus: Corpus, settings: ActivationSettings, batch_size: int) -> int:
    """Batches of one pass over a corpus, sinks counted as kept."""
    tokens = corpus.input_ids.numel()
    if settings.drop_first:
        tokens -= int(corpus.document_start.sum())
    return ceil(tokens / batch_size)


def calibrate(lineup: ResidualSource, corpus: Corpus, settings: ActivationSettings) -> Calibration:
    """Estimate sink threshold and scale of each model on the first `scale_tokens` tokens of the corpus, in whole rows.

    Raises ValueError for activations that are not finite or all zero, and when every token would be dropped.
    """
    rows = torch.arange(min(len(corpus.input_ids), ceil(settings.scale_tokens / corpus.input_ids.shape[1])))
    passes = _in_chunks(lineup, corpus.select(rows), settings)
    norms = torch.cat([_norms(values, lineup)[~_first(part, settings)] for part, values in passes])
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
    lineup: ResidualSource,
    corpus: Corpus,
    calibration: Calibration,
    settings: ActivationSettings,
    limit: int | None = None,
) -> Iterator[Activations]:
    """Collect the kept tokens of a corpus in its order, at most `limit` of them, a forward pass at a time.

    For tokens that are measured rather than trained on; the calibration is that of the training stream.
    """
    left, passes = corpus.input_ids.numel() if limit is None else limit, _in_chunks(lineup, corpus, settings)
    while left > 0 and (one := next(passes, None)) is not None:
        kept = _kept(lineup, *one, calibration, settings)
        yield Activations(lineup.names, kept.values[:left], kept.tokens[:left])
        left -= len(kept.tokens)


def _agreed(calibration: Calibration, shares: Shares) -> Calibration:
    """The calibration of the first process: another machine may round differently."""
    numbers = torch.stack((calibration.largest_norm, calibration.scale))
    largest_norm, scale = shares.sum(numbers if shares.rank == 0 else torch.zeros_like(numbers))
    return replace(calibration, largest_norm=largest_norm, scale=scale)


# ------------------------------------------------------------------ harvest


def _in_chunks(lineup: ResidualSource, corpus: Corpus, settings: ActivationSettings) -> Iterator[tuple[Corpus, Values]]:
    """`_passes` over a corpus of any length, as much of it at a time as fits the buffer."""
    for rows in torch.arange(len(corpus.input_ids)).split(_rows_per_chunk(lineup, corpus, settings, 0)):
        yield from _passes(lineup, corpus.select(rows), settings, None)


def _passes(
    lineup: ResidualSource, corpus: Corpus, settings: ActivationSettings, buffer: Buffer | None
) -> Iterator[tuple[Corpus, Values]]:
    """Some rows of a corpus after others, as many as a forward pass takes, with the residual streams of all models.

    Models that take turns go through all rows, one after the other, before the first are given; what they leave lies in
    the free end of the buffer, where there is one.
    """
    if not len(corpus.input_ids):
        return
    parts = [corpus.select(part) for part in torch.arange(len(corpus.input_ids)).split(settings.batch_size)]
    if isinstance(lineup, Lineup) and lineup.turns:
        shape = (*corpus.input_ids.shape, len(lineup.names), lineup.d_model)
        room = torch.empty(shape, device=lineup.device) if buffer is None else buffer.end(shape[0] * shape[1])
        values = room.view(shape)
        ids, positions = corpus.input_ids.long(), corpus.position_ids
        lineup.fill(values, ids, position_ids=positions, batch_size=settings.batch_size)
        yield from zip(parts, values.split(settings.batch_size), strict=True)
        return
    for part in parts:
        with torch.no_grad():
            values = lineup.residuals(part.input_ids.long(), position_ids=part.position_ids)
        yield part, values


def _kept(
    lineup: ResidualSource, corpus: Corpus, values: Values, calibration: Calibration, settings: ActivationSettings
) -> Kept:
    """The activations of the tokens that are neither dropped as a start nor a sink in any model."""
    norms = _norms(values, lineup)
    first = _first(corpus, settings).to(values.device)
    sink = (norms > calibration.largest_norm.to(values.device)).any(dim=-1) & ~first
    keep = ~(first | sink)
    counts = torch.stack((first.sum(), sink.sum(), keep.sum())).tolist()
    tokens = corpus.input_ids.to(values.device, torch.long)[keep]
    return Kept(values[keep], tokens, keep.sum(dim=1), StreamCounts(keep.numel(), *counts))


def _norms(values: Values, lineup: ResidualSource) -> Float[Tensor, "sequences context models"]:
    norms = torch.linalg.vector_norm(values, dim=-1)
    finite = norms.isfinite().all(dim=0).all(dim=0)
    if not finite.all():
        raise not_finite(lineup.names[finite.tolist().index(False)])
    return norms


def not_finite(name: str) -> ValueError:
    """The error for a model whose activations are not finite."""
    return ValueError(
        f"the activations of model {name!r} hold NaN or infinity; check its weights, "
        "or set lineup.dtype to bfloat16 or float32"
    )


def _first(corpus: Corpus, settings: ActivationSettings) -> Bool[Tensor, "sequences context"]:
    return corpus.document_start if settings.drop_first else torch.zeros_like(corpus.document_start)


# ------------------------------------------------------------------ order


def _rows_per_chunk(lineup: ResidualSource, corpus: Corpus, settings: ActivationSettings, batch_size: int) -> int:
    """Rows whose activations fit the buffer together with a carried batch: at least one, else whole forward passes."""
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
