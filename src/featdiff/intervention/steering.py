"""Four editing methods that put a tuned model's behaviour into its base (the companion paper).

features    crosscoder features are set at the tap: `EditedModel`
steering    a vector is added to the residual stream at the tap: `SteeredModel`
neurons     MLP neurons are set wherever they are: `NeuronEditedModel`
weights     the model was tuned, nothing is edited: `UneditedModel`

A method edits a model while it scores text; it neither changes its weights nor generates.
"""

import inspect
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.evaluation.batches import (
    Layout,
    Positions,
    RequestBatch,
    choice_beginnings,
    edited_tokens,
    padded,
    prompts_of,
    request_batches,
    scored_alike,
)
from featdiff.evaluation.results import Requests
from featdiff.intervention.edited_model import EditedModel
from featdiff.intervention.neuron_edits import NeuronEdit
from featdiff.models.loading import PreTrainedModel
from featdiff.models.neurons import reading_neurons, setting_neurons, shifting_residual
from featdiff.progress import Progress

Prompt = Int[Tensor, " batch"]
Real = Bool[Tensor, "batch positions"]


@dataclass(frozen=True, eq=False)
class UneditedModel:
    """A model whose weights carry the behaviour, or the base itself."""

    model: PreTrainedModel

    @contextmanager
    def running(self, prompt: Prompt, real: Real) -> Generator[PreTrainedModel, None, None]:
        """The model."""
        yield self.model


@dataclass(frozen=True, eq=False)
class SteeredModel:
    """The base with a vector added after block `layers`; the zero vector changes not one bit."""

    model: PreTrainedModel
    layers: int
    vector: Float[Tensor, " d_model"]
    positions: Positions = "all"

    @contextmanager
    def running(self, prompt: Prompt, real: Real) -> Generator[PreTrainedModel, None, None]:
        """The model, steered where `positions` allows: `prompt` columns come first, `real` marks no padding."""
        with shifting_residual(self.model, self.layers, self.vector, _mask(self.positions, prompt, real)):
            yield self.model


@dataclass(frozen=True, eq=False)
class NeuronEditedModel:
    """The base with MLP neurons set to given values."""

    model: PreTrainedModel
    setting: NeuronEdit
    positions: Positions = "all"

    @contextmanager
    def running(self, prompt: Prompt, real: Real) -> Generator[PreTrainedModel, None, None]:
        """The model, its neurons set where `positions` allows."""
        mask = _mask(self.positions, prompt, real)
        with setting_neurons(self.model, self.setting.neurons, self.setting.values, mask):
            yield self.model


EditingMethod = EditedModel | SteeredModel | NeuronEditedModel | UneditedModel


def everywhere(method: EditingMethod) -> EditingMethod:
    """Apply a method to every token, for text that is no prompt."""
    match method:
        case EditedModel():
            return replace(method, edits=tuple(replace(edit, positions="all") for edit in method.edits))
        case SteeredModel() | NeuronEditedModel():
            return replace(method, positions="all")
        case UneditedModel():
            return method


@torch.no_grad()
def score_methods(
    requests: Requests,
    model: PreTrainedModel,
    methods: Sequence[SteeredModel | NeuronEditedModel | UneditedModel],
    *,
    batch_size: int = 64,
) -> Float[Tensor, "variants requests"]:
    """Log-likelihood of every request's continuation: row 0 by `model` unedited, row i + 1 under `methods[i]`.

    The choices of an item share their context where the unedited model scores them alike. (Edits of features are scored
    by `intervention.score`, which runs what lies below the tap once for all of them.)
    """
    result = torch.zeros(len(methods) + 1, len(requests.context_ids))
    batches = request_batches(requests, batch_size, model.device)
    with Progress(f"{len(methods)} methods on {requests.task}", total=len(batches), unit="batch") as progress:
        for batch in batches:
            layout, plain = _cheapest(batch, model)
            for row, values in enumerate((plain, *(_log_likelihood(method, batch, layout) for method in methods))):
                result[row, layout.requests.cpu()] = values.cpu()
            progress.advance()
    return result


@dataclass(frozen=True, eq=False)
class PromptEndStates:
    """Neurons and next token of a model at the last token of each item's prompt."""

    neurons: Float[Tensor, "samples neurons"]
    in_form: Bool[Tensor, " samples"]
    """Whether the token that it would generate first begins one of the item's choices."""


@torch.no_grad()
def prompt_end_states(method: EditingMethod, requests: Requests, *, batch_size: int = 64) -> PromptEndStates:
    """Run an edited model over the prompts of all items."""
    prompts, begins = prompts_of(requests), choice_beginnings(requests)
    order = sorted(range(len(prompts)), key=lambda sample: len(prompts[sample]), reverse=True)
    neurons, in_form = [torch.empty(0)] * len(prompts), torch.zeros(len(prompts), dtype=torch.bool)
    device = method.model.device
    for start in range(0, len(order), batch_size):
        samples = order[start : start + batch_size]
        input_ids, real = (part.to(device) for part in padded([prompts[sample] for sample in samples]))
        length = real.sum(dim=-1)
        keep, where = (length - 1).unique(return_inverse=True)
        with method.running(length, real.bool()) as model, reading_neurons(model, length - 1) as seen:
            logits = _logits(model, keep, input_ids=input_ids, attention_mask=real)
        tokens = logits[torch.arange(len(samples), device=device), where].argmax(dim=-1).tolist()
        for sample, token, values in zip(samples, tokens, torch.cat(seen, dim=-1).cpu(), strict=True):
            neurons[sample], in_form[sample] = values, token in begins[sample]
    return PromptEndStates(torch.stack(neurons), in_form)


@torch.no_grad()
def text_logits(
    method: EditingMethod,
    input_ids: Int[Tensor, "batch positions"],
    position_ids: Int[Tensor, "batch positions"] | None = None,
) -> Float[Tensor, "batch positions vocabulary"]:
    """Compute logits on text, edited at every token."""
    device = method.model.device
    real = torch.ones_like(input_ids, dtype=torch.bool, device=device)
    places = None if position_ids is None else position_ids.to(device)
    with everywhere(method).running(real.sum(dim=-1), real) as model:
        return model(input_ids=input_ids.to(device), position_ids=places, use_cache=False).logits


def _mask(positions: Positions, prompt: Prompt, real: Real) -> Real:
    place = torch.arange(real.shape[1], device=real.device)
    return edited_tokens(positions, place[None], prompt.to(real.device)[:, None], real)


def _cheapest(batch: RequestBatch, model: PreTrainedModel) -> tuple[Layout, Float[Tensor, " requests"]]:
    """The layout with shared contexts, if this model scores it as it scores row by row; and those scores."""
    plain = _log_likelihood(UneditedModel(model), batch, batch.plain)
    if batch.shared.branch is None:
        return batch.plain, plain
    found = _log_likelihood(UneditedModel(model), batch, batch.shared)
    return (batch.shared if scored_alike(found, plain, model.dtype) else batch.plain), plain


def _log_likelihood(
    method: SteeredModel | NeuronEditedModel | UneditedModel, batch: RequestBatch, layout: Layout
) -> Tensor:
    """Log-likelihoods of the continuations of the batch's requests, in the order of the layout."""
    everyone = torch.arange(len(layout.input_ids), device=layout.input_ids.device)
    with method.running(batch.prompt[layout.row[:, 0]], layout.real.bool()) as model:
        logits = _logits(
            model,
            layout.answer_positions,
            input_ids=layout.input_ids,
            attention_mask=layout.attention_mask(everyone, model.dtype),
            position_ids=layout.position_ids,
        )
    return layout.log_likelihood(logits, everyone)


def _logits(model: PreTrainedModel, keep: Int[Tensor, " kept"], **given: Tensor) -> Tensor:
    """Logits at the places `keep`."""
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        return model(**given, use_cache=False, logits_to_keep=keep).logits
    return model(**given, use_cache=False).logits[:, keep]
