"""Edit one model's residual stream at the tap and score its answers (Sec. 7.1, Tables 2-5).

1. The halves of all models below the tap read the tokens once: a^m, `[batch positions models d_model]`.
2. The crosscoder encodes them jointly; only the features that some edit names are kept.
3. Each edit moves the model's activation: a' = a + scale_m sum_k (v - f_k) W_dec[k, m]. What the crosscoder fails to
   reconstruct stays as it is.
4. The half above the tap turns a' into logits. A sequence that an edit leaves as it was keeps its score, to the bit.

A hundred edits thus cost one pass below the tap, and above it a pass for each sequence that an edit really moves. There
the choices of an item share their context, if the unedited batch shows that the model scores them alike.
"""

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from featdiff.activations.models import Lineup, PreTrainedModel, blocks
from featdiff.causal.batches import Layout, Positions, RequestBatch, request_batches
from featdiff.causal.records import Requests
from featdiff.crosscoder.model import Crosscoder
from featdiff.progress import Progress

_CHUNK = 2048
"""Tokens that are encoded at once."""


@dataclass(frozen=True, eq=False)
class Edit:
    """Set `features` to `value` wherever `positions` allows: 0.0 zeroes them, 3.0 amplifies them (Sec. 7.1).

    The value is in the crosscoder's gauge. `all` edits every token, `prompt` those before the answer, `last_prompt` the
    last of those; padding never is edited. Zeroing leaves tokens alone on which the features are silent; setting to 3.0
    does not. Raises ValueError for a repeated feature or a value that is not finite.
    """

    features: Int[Tensor, " n"]
    value: float
    positions: Positions = "all"

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"an edit sets features to {self.value}; give a finite value")
        if len(self.features.unique()) < len(self.features):
            raise ValueError(f"an edit names a feature twice among {self.features.tolist()}; name each once")

    @property
    def name(self) -> str:
        """How tables call the edit: "zero" or "set to 3.0"."""
        return "zero" if self.value == 0 else f"set to {self.value:.1f}"


def apply(
    edit: Edit,
    residual: Float[Tensor, "batch positions d_model"],
    features: Float[Tensor, "batch positions n"],
    crosscoder: Crosscoder,
    model: str,
    mask: Bool[Tensor, "batch positions"],
) -> Float[Tensor, "batch positions d_model"]:
    """a' = a + scale_m sum_k (v - f_k) W_dec[k, m] where `mask` holds, in raw units; a elsewhere.

    `features` are the joint codes f_k of `edit.features`, in that order. Activations whose codes
    equal the value already keep their bits.
    """
    change = torch.where(mask[..., None], edit.value - features, 0.0)
    m = crosscoder.index(model)
    directions = crosscoder.scale[m] * crosscoder.W_dec[edit.features, m]
    moved = residual + einsum(change, directions, "batch positions n, n d_model -> batch positions d_model")
    return torch.where((change != 0).any(dim=-1, keepdim=True), moved, residual)


class UpperModel:
    """The blocks of a causal language model above the tap, from a given residual stream to logits.

    It is a copy of the model that shares every parameter and in which the blocks up to `layers` do nothing, the last of
    them but giving out the residual; so no architecture needs to be known, and the model itself is left as it was.
    Raises ValueError when the model has fewer blocks than `layers`.
    """

    def __init__(self, model: PreTrainedModel, layers: int) -> None:
        stack = blocks(model)
        if not 1 <= layers <= len(stack):
            raise ValueError(
                f"the tap lies after block {layers} of {len(stack)}; choose a layer from 1 to {len(stack)}"
            )
        self.layers = layers
        self.dtype: torch.dtype = model.dtype
        self._given: Tensor | None = None
        below = [_with_forward(block, _pass_on) for block in stack[: layers - 1]]
        tap = _with_forward(stack[layers - 1], self._give)
        self._model = _replaced(model, stack, nn.ModuleList([*below, tap, *stack[layers:]]))
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.no_grad()
    def __call__(
        self,
        residual: Float[Tensor, "batch positions d_model"],
        input_ids: Int[Tensor, "batch positions"],
        attention_mask: Int[Tensor, "batch positions"] | Float[Tensor, "batch 1 positions positions"] | None = None,
        position_ids: Int[Tensor, "batch positions"] | None = None,
        keep: Int[Tensor, " kept"] | None = None,
    ) -> Float[Tensor, "batch kept vocabulary"]:
        """Logits at the positions `keep`, by default at all.

        `input_ids` serve the masks alone. The residual is taken in the model's own precision, so that one captured
        there gives the model's own logits bit for bit.
        """
        options = {"logits_to_keep": keep} if self._keeps_logits and keep is not None else {}
        self._given = residual.to(self.dtype)
        try:
            output = self._model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                use_cache=False,
                **options,
            )
            if self._given is not None:
                raise ValueError(
                    "the model ran past the tap: its forward is bound to another copy; load it without a device map"
                )
        finally:
            self._given = None
        return output.logits if keep is None or options else output.logits[:, keep]

    def _give(self, hidden_states: Tensor, *arguments: object, **options: object) -> Tensor:
        given, self._given = self._given, None
        assert given is not None and given.shape == hidden_states.shape, "one residual vector per token, given once"
        return given


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
) -> Float[Tensor, "variants requests"]:
    """Log-likelihood of every request's continuation: row 0 unedited, row i + 1 under `edits[i]`.

    `upper` belongs to `model`; the lineup holds at least the crosscoder's models. Codes come from the joint encoding of
    the unedited activations. Raises ValueError when a model is missing or a feature is out of range.
    """
    _check(lineup, upper, crosscoder, model, edits)
    result = torch.zeros(len(edits) + 1, len(requests.context_ids))
    batches = request_batches(requests, batch_size, crosscoder.W_dec.device)
    with Progress(f"editing {model} on {requests.task}", total=len(batches), unit="batch") as progress:
        for batch in batches:
            _score_batch(batch, lineup, upper, crosscoder, model, edits, result, batch_size)
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


@dataclass(frozen=True)
class Activity:
    """How active each feature is where edits apply: what controls are matched by."""

    density: Float[Tensor, " features"]
    """Share of the edited tokens on which the feature fires."""
    contribution: Float[Tensor, " features"]
    """Mean over those tokens of f_k ||W_dec[k, m]||_2, in normalised units of the edited model."""
    tokens: int


@torch.no_grad()
def activity(
    requests: Requests,
    lineup: Lineup,
    crosscoder: Crosscoder,
    model: str,
    positions: Positions = "all",
    *,
    batch_size: int = 64,
) -> Activity:
    """Firing rate and mean contribution of every feature at the positions that an edit of `model` would touch."""
    order = _order(lineup, crosscoder)
    norms = crosscoder.W_dec[:, crosscoder.index(model)].norm(dim=-1).double().cpu()
    fired, total, tokens = torch.zeros_like(norms), torch.zeros_like(norms), 0
    for batch in request_batches(requests, batch_size, crosscoder.W_dec.device):
        activations = lineup.residuals(batch.input_ids, batch.attention_mask)[:, :, order]
        for chunk in activations[batch.edited(positions)].split(_CHUNK):
            features = crosscoder.encode(chunk)
            fired += (features > 0).sum(dim=0).cpu()
            total += features.double().sum(dim=0).cpu()
            tokens += len(chunk)
    return Activity((fired / tokens).float(), (norms * total / tokens).float(), tokens)


def joint_features(
    activations: Float[Tensor, "batch positions models d_model"],
    attention_mask: Int[Tensor, "batch positions"],
    crosscoder: Crosscoder,
    wanted: Int[Tensor, " wanted"],
) -> Float[Tensor, "batch positions wanted"]:
    """Joint codes of the features `wanted`; 0 on padding. All features are held for one chunk of tokens at a time."""
    real = attention_mask.bool()
    codes = [crosscoder.encode(chunk)[:, wanted] for chunk in activations[real].split(_CHUNK)]
    features = activations.new_zeros(*real.shape, len(wanted))
    features[real] = torch.cat(codes)
    return features


def _score_batch(
    batch: RequestBatch,
    lineup: Lineup,
    upper: UpperModel,
    crosscoder: Crosscoder,
    model: str,
    edits: Sequence[Edit],
    result: Float[Tensor, "variants requests"],
    batch_size: int,
) -> None:
    """Fill the batch's columns of `result`."""
    activations = lineup.residuals(batch.input_ids, batch.attention_mask)
    residual = activations[:, :, lineup.names.index(model)]
    plain = _log_likelihood(batch.plain, upper, _sequences(batch.plain), residual)
    result[:, batch.plain.requests.cpu()] = plain.cpu()
    if not edits:
        return
    wanted = torch.cat([edit.features.cpu() for edit in edits]).unique()
    order = _order(lineup, crosscoder)
    features = joint_features(activations[:, :, order], batch.attention_mask, crosscoder, wanted.to(residual.device))

    layout = _cheapest(batch, upper, residual, plain)
    residual, features = residual[layout.row, layout.position_ids], features[layout.row, layout.position_ids]
    waiting = _Waiting(layout, upper, result, batch_size)
    for variant, edit in enumerate(edits, start=1):
        codes = features[:, :, torch.searchsorted(wanted, edit.features.cpu()).to(residual.device)]
        mask = batch.edited(edit.positions)[layout.row, layout.position_ids] & layout.real.bool()
        waiting.add(variant, residual, apply(edit, residual, codes, crosscoder, model, mask))
    waiting.run()


def _cheapest(batch: RequestBatch, upper: UpperModel, residual: Tensor, plain: Tensor) -> Layout:
    """The layout with shared contexts, if this model scores the unedited batch by it as it does row by row.

    A sliding window or a bias by distance would not know that answers stand side by side.
    """
    shared = batch.shared
    if shared.branch is None:
        return batch.plain
    found = _log_likelihood(shared, upper, _sequences(shared), residual[shared.row, shared.position_ids])
    tolerance = 1e-4 if upper.dtype == torch.float32 else 5e-2
    return shared if torch.allclose(found, plain, rtol=tolerance, atol=tolerance) else batch.plain


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
                pair, request = _asked(self._layout, sequences[piece])
                values = _log_likelihood(self._layout, self._upper, sequences[piece], residual[piece])
                self._result[variants[piece][pair].cpu(), self._layout.requests[request].cpu()] = values.cpu()
        self._parts, self._count = [], 0


def _log_likelihood(layout: Layout, upper: UpperModel, sequences: Tensor, residual: Tensor) -> Tensor:
    """What the continuations of the requests of these sequences score, in the order of `_asked`."""
    logits = upper(
        residual,
        layout.input_ids[sequences],
        layout.attention_mask(sequences, upper.dtype),
        layout.position_ids[sequences],
        keep=layout.answer_positions,
    ).float()
    pair, request = _asked(layout, sequences)
    place, token = layout.answer_place[request], layout.answer_token[request]
    chosen = logits[pair[:, None], place, token] - logits.logsumexp(dim=-1)[pair[:, None], place]
    return torch.where(layout.answer_mask[request], chosen, 0.0).sum(dim=-1)


def _asked(layout: Layout, sequences: Tensor) -> tuple[Tensor, Tensor]:
    """For every request of these sequences: which of them it reads, and its index in the layout."""
    pair, request = (layout.sequence[None, :] == sequences[:, None]).nonzero(as_tuple=True)
    return pair, request


def _sequences(layout: Layout) -> Tensor:
    return torch.arange(len(layout.input_ids), device=layout.input_ids.device)


def _pass_on(hidden_states: Tensor, *arguments: object, **options: object) -> Tensor:
    return hidden_states


def _with_forward(block: nn.Module, forward: Callable[..., Tensor]) -> nn.Module:
    """A copy of `block` that runs `forward`; it keeps the attributes that the model around it reads."""
    stub = copy.copy(block)
    stub.forward = forward
    return stub


def _replaced(model: PreTrainedModel, old: nn.ModuleList, new: nn.ModuleList) -> PreTrainedModel:
    """A copy of `model` with `new` in the place of `old`. Only the modules on the way are copied, no parameter."""
    *way, last = next(name for name, module in model.named_modules() if module is old).split(".")
    root = parent = copy.copy(model)
    for name in way:
        child = copy.copy(parent.get_submodule(name))
        parent._modules = {**parent._modules, name: child}
        parent = child
    parent._modules = {**parent._modules, last: new}
    return root


def _check(lineup: Lineup, upper: UpperModel, crosscoder: Crosscoder, model: str, edits: Sequence[Edit]) -> None:
    if upper.layers != lineup.layers:
        raise ValueError(
            f"the upper half starts after block {upper.layers}, the lineup ends after block {lineup.layers}"
        )
    crosscoder.index(model)
    _order(lineup, crosscoder)
    for edit in edits:
        outside = (edit.features < 0) | (edit.features >= crosscoder.features)
        if outside.any():
            raise ValueError(
                f"an edit names the feature {int(edit.features[outside][0])}; "
                f"the crosscoder has {crosscoder.features}, counted from 0"
            )


def _order(lineup: Lineup, crosscoder: Crosscoder) -> list[int]:
    """Where the crosscoder's models stand in the lineup."""
    if missing := [name for name in crosscoder.models if name not in lineup.names]:
        raise ValueError(
            f"the crosscoder reads {missing}, the lineup holds {list(lineup.names)}; load those models too"
        )
    return [lineup.names.index(name) for name in crosscoder.models]
