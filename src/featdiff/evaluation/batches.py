"""Padded batches of a task's requests, and the residual streams at the last token of its prompts.

A request asks how likely a continuation is after a context. A model reads both but the continuation's last token;
requests that read the same tokens (choices of one token each) share one row. Below the hook point every row runs once.
Above it, where each row runs for every edit, rows can also share their context: the continuations then follow it one
after another, each at the position after the context, and none sees another.
"""

from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.evaluation.results import Requests
from featdiff.models.loading import Lineup

Positions = Literal["all", "prompt", "last_prompt", "generated"]
"""Which tokens an edit touches: every one, those before the answer, the last of those, or those of the answer."""


def edited_tokens(
    positions: Positions,
    place: Int[Tensor, "#batch length"],
    prompt: Int[Tensor, "#batch 1"],
    real: Bool[Tensor, "batch length"],
) -> Bool[Tensor, "batch length"]:
    """Mask of the tokens that an edit changes, never padding.

    place: column of each token. prompt: columns before the answer. real: False on padding.

    The answer is what a model generates, or the choice whose likelihood it scores.
    """
    match positions:
        case "all":
            return real
        case "prompt":
            return real & (place < prompt)
        case "last_prompt":
            return real & (place == prompt - 1)
        case "generated":
            return real & (place >= prompt)


@dataclass(frozen=True, eq=False)
class Layout:
    """Tokens of a batch as the layers above the hook point read them, and where they predict the continuations."""

    input_ids: Int[Tensor, "sequences length"]
    row: Int[Tensor, "sequences length"]
    """Row of the batch in which each token stands."""
    position_ids: Int[Tensor, "sequences length"]
    """Its position there."""
    real: Int[Tensor, "sequences length"]
    """1 on tokens, 0 on padding."""
    branch: Int[Tensor, "sequences length"] | None
    """0 in the context, else the number of the answer to which a token belongs; None: no context is shared."""
    requests: Int[Tensor, " requests"]
    """Index of each request in the task."""
    sequence: Int[Tensor, " requests"]
    """Sequence that each request reads."""
    answer_positions: Int[Tensor, " kept"]
    """Positions whose logits some request needs, ascending."""
    answer_place: Int[Tensor, "requests longest"]
    """Where in `answer_positions` each token of a continuation is predicted."""
    answer_token: Int[Tensor, "requests longest"]
    answer_mask: Bool[Tensor, "requests longest"]

    def attention_mask(self, sequences: Int[Tensor, " chosen"], dtype: torch.dtype) -> Tensor:
        """Attention mask for transformers: 1 on tokens, `[chosen length]`, or a term added to the attention scores."""
        real = self.real[sequences]
        if self.branch is None:
            return real
        hidden = torch.tensor(torch.finfo(dtype).min, dtype=dtype, device=real.device)
        return torch.where(_sees(self.branch[sequences], real)[:, None], torch.zeros_like(hidden), hidden)

    def asked(self, sequences: Int[Tensor, " chosen"]) -> tuple[Int[Tensor, " found"], Int[Tensor, " found"]]:
        """Index into `sequences`, and into the layout, of every request that reads one of these sequences."""
        pair, request = (self.sequence[None, :] == sequences[:, None]).nonzero(as_tuple=True)
        return pair, request

    def log_likelihood(
        self, logits: Float[Tensor, "chosen kept vocabulary"], sequences: Int[Tensor, " chosen"]
    ) -> Float[Tensor, " found"]:
        """Log-likelihood of the continuations, from logits at `answer_positions`; in the order of `asked`."""
        logits, (pair, request) = logits.float(), self.asked(sequences)
        place, token = self.answer_place[request], self.answer_token[request]
        chosen = logits[pair[:, None], place, token] - logits.logsumexp(dim=-1)[pair[:, None], place]
        return torch.where(self.answer_mask[request], chosen, 0.0).sum(dim=-1)


@dataclass(frozen=True, eq=False)
class RequestBatch:
    """Rows of tokens, padded on the right, and two layouts of them: each row by itself, or contexts shared."""

    input_ids: Int[Tensor, "batch positions"]
    attention_mask: Int[Tensor, "batch positions"]
    prompt: Int[Tensor, " batch"]
    """Tokens before the answer, per row."""
    plain: Layout
    shared: Layout

    def edited(self, positions: Positions) -> Bool[Tensor, "batch positions"]:
        """Mask of the tokens that an edit changes; never padding."""
        place = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        return edited_tokens(positions, place[None], self.prompt[:, None], self.attention_mask.bool())


@dataclass(frozen=True)
class _Row:
    """Tokens that a model reads, and the requests that read them."""

    context: tuple[int, ...]
    answer: tuple[int, ...]
    """The continuations less their last tokens."""
    requests: tuple[int, ...]


def request_batches(requests: Requests, batch_size: int, device: torch.device | str = "cpu") -> list[RequestBatch]:
    """Put all requests into batches of at most `batch_size` rows of similar length, the longest contexts first.

    Raises ValueError for a request without context or continuation.
    """
    readers: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for request, (context, continuation) in enumerate(
        zip(requests.context_ids, requests.continuation_ids, strict=True)
    ):
        if not context or not continuation:
            raise ValueError(f"request {request} of {requests.task} has an empty context or continuation; give both")
        readers.setdefault((tuple(context), tuple(continuation[:-1])), []).append(request)
    rows = [_Row(context, answer, tuple(who)) for (context, answer), who in readers.items()]
    rows.sort(key=lambda row: (len(row.context), row.context, len(row.answer)), reverse=True)
    parts = (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))
    return [_batch(part, requests.continuation_ids, torch.device(device)) for part in parts]


def scored_alike(shared: Float[Tensor, " requests"], plain: Float[Tensor, " requests"], dtype: torch.dtype) -> bool:
    """Whether scores of a batch in both layouts agree within the rounding of a precision.

    A sliding window or a bias by distance would not know that answers stand side by side.
    """
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    return torch.allclose(shared, plain, rtol=tolerance, atol=tolerance)


def prompts_of(requests: Requests) -> list[list[int]]:
    """Prompt of every item; where its choices have their own, that of the first."""
    first = requests.choice_counts.cumsum(dim=0) - requests.choice_counts
    return [requests.context_ids[request] for request in first.tolist()]


def choice_beginnings(requests: Requests) -> list[set[int]]:
    """First tokens of the choices of every item."""
    continuations = iter(requests.continuation_ids)
    return [{tokens[0] for tokens in islice(continuations, count)} for count in requests.choice_counts.tolist()]


@torch.no_grad()
def final_prompt_activations(
    requests: Requests, lineup: Lineup, *, batch_size: int = 64
) -> Float[Tensor, "samples models d_model"]:
    """Raw residual streams of all models at the last token of each item's prompt (Sec. 3.2), as of `prompts_of`."""
    prompts = prompts_of(requests)
    result = torch.empty(len(prompts), len(lineup.names), lineup.d_model)
    order = sorted(range(len(prompts)), key=lambda sample: len(prompts[sample]), reverse=True)
    for start in range(0, len(order), batch_size):
        samples = order[start : start + batch_size]
        input_ids, attention_mask = padded([prompts[sample] for sample in samples])
        device = lineup.models[0].device
        activations = lineup.residuals(input_ids.to(device), attention_mask.to(device)).cpu()
        result[samples] = activations[torch.arange(len(samples)), attention_mask.sum(dim=-1) - 1]
    return result


def _batch(rows: list[_Row], continuations: list[list[int]], device: torch.device) -> RequestBatch:
    input_ids, attention_mask = (one.to(device) for one in padded([[*row.context, *row.answer] for row in rows]))
    numbered = list(enumerate(rows))
    groups = [list(group) for _, group in groupby(numbered, key=lambda pair: pair[1].context)]
    return RequestBatch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        prompt=torch.tensor([len(row.context) for row in rows], device=device),
        plain=_layout([[pair] for pair in numbered], continuations, device),
        shared=_layout(groups, continuations, device),
    )


@dataclass(frozen=True)
class _Sequence:
    """One context and the answers that follow it; the lists run over its tokens."""

    tokens: list[int]
    position: list[int]
    row: list[int]
    branch: list[int]
    """0 in the context, else the number of the answer."""
    asked: list[tuple[int, list[int]]]
    """Each request, and where its continuation is predicted."""


def _sequence(group: list[tuple[int, _Row]]) -> _Sequence:
    """The sequence of the (numbered) rows that begin with one context."""
    index, first = group[0]
    length = len(first.context)
    made = _Sequence(list(first.context), list(range(length)), [index] * length, [0] * length, [])
    for branch, (index, row) in enumerate(group, start=1):
        start, more = len(made.tokens), len(row.answer)
        predicted = [length - 1, *range(start, start + more)]  # the first token of the answer at the context's last
        made.asked.extend((request, predicted) for request in row.requests)
        made.tokens.extend(row.answer)
        made.position.extend(range(length, length + more))
        made.row.extend([index] * more)
        made.branch.extend([branch] * more)
    return made


def _layout(groups: list[list[tuple[int, _Row]]], continuations: list[list[int]], device: torch.device) -> Layout:
    sequences = [_sequence(group) for group in groups]
    asked = [(number, *pair) for number, sequence in enumerate(sequences) for pair in sequence.asked]
    input_ids, real = padded([sequence.tokens for sequence in sequences])
    answer_token, answer_mask = padded([continuations[request] for _, request, _ in asked])
    predicted, _ = padded([places for *_, places in asked])
    predicted = torch.where(answer_mask.bool(), predicted, predicted[:, :1])
    answer_positions, answer_place = predicted.unique(return_inverse=True)
    alone = all(len(group) == 1 for group in groups)
    return Layout(
        input_ids=input_ids.to(device),
        row=padded([sequence.row for sequence in sequences])[0].to(device),
        position_ids=padded([sequence.position for sequence in sequences])[0].to(device),
        real=real.to(device),
        branch=None if alone else padded([sequence.branch for sequence in sequences])[0].to(device),
        requests=torch.tensor([request for _, request, _ in asked], device=device),
        sequence=torch.tensor([number for number, *_ in asked], device=device),
        answer_positions=answer_positions.to(device),
        answer_place=answer_place.to(device),
        answer_token=answer_token.to(device),
        answer_mask=answer_mask.bool().to(device),
    )


def _sees(
    branch: Int[Tensor, "sequences length"], real: Int[Tensor, "sequences length"]
) -> Bool[Tensor, "sequences length length"]:
    """Attention mask: a token sees the context and its own answer before it, and itself, also where it is padding."""
    place = torch.arange(branch.shape[1], device=branch.device)
    same = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    return (same & real.bool()[:, None, :] & (place[None, :] <= place[:, None])) | (place[None, :] == place[:, None])


def padded(sequences: list[list[int]]) -> tuple[Int[Tensor, "sequences longest"], Int[Tensor, "sequences longest"]]:
    """Pad sequences with zeros on the right; the ids, and the mask that is 1 on tokens."""
    longest = max(map(len, sequences))
    input_ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in sequences])
    attention_mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in sequences])
    return input_ids, attention_mask
