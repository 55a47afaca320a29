"""Scores of one model's answers under edits at the hook point (Sec. 7.1, Tables 2-5).

1. The halves of all models below the tap read the tokens once: a^m, `[batch positions models d_model]`.
2. The crosscoder encodes them; only the features that some edit names are kept.
3. Each edit moves the model's activation (`edits.py`). What the crosscoder fails to reconstruct stays as it is.
4. The half above the tap turns a' into logits. A sequence that an edit leaves as it was keeps its score, to the bit.

A hundred edits thus cost one pass below the tap, and above it a pass for each sequence that an edit really moves. There
the choices of an item share their context, if the unedited batch shows that the model scores them alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder
from featdiff.evaluation.batches import Layout, RequestBatch, request_batches, scored_alike
from featdiff.evaluation.results import Requests
from featdiff.intervention.activity import order_of
from featdiff.intervention.edits import CHUNK, CodeReading, Edit, Patch, apply, codes, reconstruction
from featdiff.models.loading import Lineup
from featdiff.models.partial_model import UpperModel
from featdiff.progress import Progress

ErrorTerm = Literal["keep", "drop"]
"""Whether what the crosscoder fails to reconstruct stays where an edit applies."""


@torch.no_grad()
def score(
    requests: Requests,
    lineup: Lineup,
    upper: UpperModel,
    crosscoder: Crosscoder,
    model: str,
    edits: Sequence[Edit],
    *,
    batch_size: int = 64,
    reading: CodeReading = "joint",
    error: ErrorTerm = "keep",
) -> Float[Tensor, "variants requests"]:
    """Log-likelihood of every request's continuation: row 0 unedited, row i + 1 under `edits[i]`.

    `upper` belongs to `model`; the lineup holds at least the crosscoder's models. Codes are read from the unedited
    activations. With `error` dropped, an edited token is first replaced by its reconstruction. Raises ValueError when a
    model is missing or a feature is out of range.
    """
    _check(lineup, upper, crosscoder, model, edits)
    result = torch.zeros(len(edits) + 1, len(requests.context_ids))
    batches = request_batches(requests, batch_size, crosscoder.W_dec.device)
    reader = _Reader(crosscoder, model, reading, error, edits)
    with Progress(f"editing {model} on {requests.task}", total=len(batches), unit="batch") as progress:
        for batch in batches:
            _score_batch(batch, lineup, upper, reader, result, batch_size)
            progress.advance()
    return result


def predictions(
    log_likelihood: Float[Tensor, "variants requests"], requests: Requests, metric: Literal["acc", "acc_norm"] = "acc"
) -> Int[Tensor, "variants samples"]:
    """The choice of highest log-likelihood, or (acc_norm) per character of its text; the first of equals."""
    values = log_likelihood if metric == "acc" else log_likelihood / requests.choice_characters
    table = torch.full((len(values), len(requests.sample_ids), int(requests.choice_of.max()) + 1), -math.inf)
    table[:, requests.sample_of, requests.choice_of] = values.to(table.dtype)
    return table.argmax(dim=-1)


def correctness(
    log_likelihood: Float[Tensor, "variants requests"], requests: Requests, metric: Literal["acc", "acc_norm"] = "acc"
) -> Bool[Tensor, "variants samples"]:
    """Whether each variant's prediction is the target."""
    return predictions(log_likelihood, requests, metric) == requests.target


@dataclass(frozen=True, eq=False)
class _Read:
    """What edits of one batch need to know, on the tokens of its rows."""

    features: Float[Tensor, "batch positions wanted"]
    patched: dict[str, Float[Tensor, "batch positions wanted"]]
    """By the source of a patch."""
    rebuilt: Float[Tensor, "batch positions d_model"] | None
    """The edited model's reconstruction, where the error is dropped."""

    def laid_out(self, layout: Layout) -> "_Read":
        """The same on the tokens of a layout."""
        place = (layout.row, layout.position_ids)
        patched = {source: values[place] for source, values in self.patched.items()}
        return _Read(self.features[place], patched, None if self.rebuilt is None else self.rebuilt[place])


@dataclass(frozen=True, eq=False)
class _Reader:
    """How the codes of one model are read for a list of edits."""

    crosscoder: Crosscoder
    model: str
    reading: CodeReading
    error: ErrorTerm
    edits: Sequence[Edit]

    @cached_property
    def wanted(self) -> Int[Tensor, " wanted"]:
        """Features that some edit names, ascending."""
        return torch.cat([edit.features.cpu() for edit in self.edits]).unique()

    def columns(self, edit: Edit, device: torch.device) -> Int[Tensor, " n"]:
        """Where an edit's features stand among those wanted."""
        return torch.searchsorted(self.wanted, edit.features.cpu()).to(device)

    def read(
        self, activations: Float[Tensor, "batch positions models d_model"], real: Bool[Tensor, "batch positions"]
    ) -> _Read:
        """Codes on all tokens; 0 on padding. All features are held for one chunk of tokens at a time."""
        wanted = self.wanted.to(activations.device)
        sources = sorted({edit.value.source for edit in self.edits if isinstance(edit.value, Patch)})
        own, given = list[Tensor](), {source: list[Tensor]() for source in sources}
        rebuilt = list[Tensor]()
        for chunk in activations[real].split(CHUNK):
            features = codes(self.crosscoder, chunk, self.model, self.reading)
            own.append(features[:, wanted])
            if self.error == "drop":
                rebuilt.append(reconstruction(self.crosscoder, features, self.model))
            for source in sources:
                given[source].append(codes(self.crosscoder, chunk, self.model, self.reading, source)[:, wanted])
        return _Read(
            _placed(own, real),
            {source: _placed(parts, real) for source, parts in given.items()},
            _placed(rebuilt, real) if rebuilt else None,
        )


def _placed(parts: list[Tensor], real: Bool[Tensor, "batch positions"]) -> Float[Tensor, "batch positions some"]:
    values = torch.cat(parts)
    placed = values.new_zeros(*real.shape, values.shape[-1])
    placed[real] = values
    return placed


def _score_batch(
    batch: RequestBatch,
    lineup: Lineup,
    upper: UpperModel,
    reader: _Reader,
    result: Float[Tensor, "variants requests"],
    batch_size: int,
) -> None:
    """Fill the batch's columns of `result`."""
    crosscoder, model = reader.crosscoder, reader.model
    activations = lineup.residuals(batch.input_ids, batch.attention_mask)
    residual = activations[:, :, lineup.names.index(model)]
    plain = _log_likelihood(batch.plain, upper, _sequences(batch.plain), residual)
    result[:, batch.plain.requests.cpu()] = plain.cpu()
    if not reader.edits:
        return
    layout = _cheapest(batch, upper, residual, plain)
    read = reader.read(activations[:, :, order_of(lineup, crosscoder)], batch.attention_mask.bool()).laid_out(layout)
    residual = residual[layout.row, layout.position_ids]
    waiting = _Waiting(layout, upper, result, batch_size)
    for variant, edit in enumerate(reader.edits, start=1):
        columns = reader.columns(edit, residual.device)
        mask = batch.edited(edit.positions)[layout.row, layout.position_ids] & layout.real.bool()
        start = residual if read.rebuilt is None else torch.where(mask[..., None], read.rebuilt, residual)
        patched = read.patched[edit.value.source][:, :, columns] if isinstance(edit.value, Patch) else None
        edited = apply(edit, start, read.features[:, :, columns], crosscoder, model, mask, patched)
        waiting.add(variant, residual, edited)
    waiting.run()


def _cheapest(batch: RequestBatch, upper: UpperModel, residual: Tensor, plain: Tensor) -> Layout:
    """The layout with shared contexts, if this model scores the unedited batch by it as it does row by row."""
    shared = batch.shared
    if shared.branch is None:
        return batch.plain
    found = _log_likelihood(shared, upper, _sequences(shared), residual[shared.row, shared.position_ids])
    return shared if scored_alike(found, plain, upper.dtype) else batch.plain


class _Waiting:
    """Edited sequences of one batch, gathered over edits until they fill a forward pass above the tap."""

    def __init__(self, layout: Layout, upper: UpperModel, result: Tensor, batch_size: int) -> None:
        self._layout, self._upper, self._result, self._batch_size = layout, upper, result, batch_size
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._count = 0

    def add(self, variant: int, residual: Tensor, edited: Tensor) -> None:
        """Take the sequences of `edited` that differ from `residual`."""
        sequences = (edited != residual).flatten(1).any(dim=-1).nonzero().flatten()
        self._parts.append((torch.full_like(sequences, variant), sequences, edited[sequences]))
        self._count += len(sequences)
        if self._count >= self._batch_size:
            self.run()

    def run(self) -> None:
        """Run what waits above the tap, and write down what its continuations score."""
        if self._count:
            variants, sequences, residual = (torch.cat(part) for part in zip(*self._parts, strict=True))
            for piece in torch.arange(self._count, device=residual.device).split(self._batch_size):
                pair, request = self._layout.asked(sequences[piece])
                values = _log_likelihood(self._layout, self._upper, sequences[piece], residual[piece])
                self._result[variants[piece][pair].cpu(), self._layout.requests[request].cpu()] = values.cpu()
        self._parts, self._count = [], 0


def _log_likelihood(layout: Layout, upper: UpperModel, sequences: Tensor, residual: Tensor) -> Tensor:
    """What the continuations of the requests of these sequences score, in the order of `layout.asked`."""
    logits = upper(
        residual,
        layout.input_ids[sequences],
        layout.attention_mask(sequences, upper.dtype),
        layout.position_ids[sequences],
        keep=layout.answer_positions,
    )
    return layout.log_likelihood(logits, sequences)


def _sequences(layout: Layout) -> Tensor:
    return torch.arange(len(layout.input_ids), device=layout.input_ids.device)


def _check(lineup: Lineup, upper: UpperModel, crosscoder: Crosscoder, model: str, edits: Sequence[Edit]) -> None:
    if upper.layers != lineup.layers:
        raise ValueError(
            f"the upper half starts after block {upper.layers}, the lineup ends after block {lineup.layers}"
        )
    crosscoder.index(model)
    order_of(lineup, crosscoder)
    for edit in edits:
        outside = (edit.features < 0) | (edit.features >= crosscoder.features)
        if outside.any():
            raise ValueError(
                f"an edit names the feature {int(edit.features[outside][0])}; "
                f"the crosscoder has {crosscoder.features}, counted from 0"
            )
        if isinstance(edit.value, Patch):
            crosscoder.index(edit.value.source)
