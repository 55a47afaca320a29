"""Distances of a tuned model from its base, and interpolated models that have moved less.

KL            mean over predictions of sum_v p_base(v) (log p_base(v) - log p_tuned(v)), in nats
weights       |W_tuned - W_base|_F / |W_base|_F, by group of tensors and over all
activations   sum |a_tuned - a_base|^2 / sum |a_base - mean(a_base)|^2 of the residual stream after every block
interpolation W_alpha = W_base + alpha (W_tuned - W_base): the same change, less of it

More drift may by itself make more features look specific. At equal KL, by interpolation, only the kind of change is
left to differ.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from featdiff.models.loading import PreTrainedModel
from featdiff.models.residual import blocks

HALVINGS = 12
"""Steps of the bisection: alpha is known to 1 / 4096."""


@dataclass(frozen=True)
class Text:
    """Batch of text whose predictions of the next token, or activations, are compared at some positions."""

    input_ids: Int[Tensor, "batch positions"]
    attention_mask: Int[Tensor, "batch positions"] | None
    position_ids: Int[Tensor, "batch positions"] | None
    compared: Bool[Tensor, "batch positions"]


@dataclass(frozen=True)
class Predicted:
    """Predictions of a model at the compared positions of a text; on the CPU, in float32."""

    text: Text
    log_probabilities: Float[Tensor, "predictions vocabulary"]


def predictions(model: PreTrainedModel, texts: Iterable[Text]) -> Iterator[Predicted]:
    """Predict text by text, so that many models can be compared with one that is run once."""
    for text in texts:
        yield Predicted(text, _log_probabilities(model, text).cpu())


def mean_divergence(base: PreTrainedModel, tuned: PreTrainedModel, texts: Iterable[Text]) -> float:
    """KL(base | tuned) per prediction, in nats; log-probabilities are float32, their sums float64.

    ValueError where no position is compared.
    """
    return divergence_from(predictions(base, texts), tuned)


def divergence_from(base: Iterable[Predicted], tuned: PreTrainedModel) -> float:
    """`mean_divergence` from a base whose predictions are known."""
    total, count = 0.0, 0
    for known in base:
        there = _log_probabilities(tuned, known.text)
        here = known.log_probabilities.to(there.device)
        total += float((here.exp() * (here - there)).double().sum())
        count += len(here)
    if not count:
        raise ValueError("there is no prediction to compare; give texts of at least two tokens")
    return total / count


@torch.no_grad()
def activation_change(base: PreTrainedModel, tuned: PreTrainedModel, texts: Iterable[Text]) -> Float[Tensor, " layers"]:
    """Squared difference of the two residual streams as a share of the base's variance, after every block.

    Sums are float64, one vector of d_model a block.
    """
    change, squares = torch.zeros(2, len(blocks(base)), dtype=torch.float64)
    sums, tokens = None, 0
    for text in texts:
        here, there = _streams(base, text), _streams(tuned, text).to(base.device)
        change += (there - here).double().square().sum(dim=(1, 2)).cpu()
        squares += here.double().square().sum(dim=(1, 2)).cpu()
        total = here.double().sum(dim=1).cpu()
        sums = total if sums is None else sums + total
        tokens += here.shape[1]
    if sums is None or not tokens:
        raise ValueError("there is no token to compare activations on; give at least one text")
    return (change / (squares - sums.square().sum(dim=1) / tokens)).float()


@torch.no_grad()
def weight_change(base: PreTrainedModel, tuned: PreTrainedModel) -> dict[str, float]:
    """Relative change of the weights, by group (embeddings, attention, mlp, norms, other) and under "all"."""
    tables = [base.get_input_embeddings(), base.get_output_embeddings()]
    embeddings = {id(parameter) for table in tables if table is not None for parameter in table.parameters()}
    there = dict(tuned.named_parameters())
    moved: dict[str, float] = {}
    size: dict[str, float] = {}
    for name, parameter in base.named_parameters():
        group = "embeddings" if id(parameter) in embeddings else _group(name, parameter)
        difference = (there[name].double() - parameter.to(there[name].device).double()).square().sum()
        for of in (group, "all"):
            moved[of] = moved.get(of, 0.0) + float(difference)
            size[of] = size.get(of, 0.0) + float(parameter.double().square().sum())
    return {group: (moved[group] / size[group]) ** 0.5 for group in moved if size[group]}


@torch.no_grad()
def interpolate(into: PreTrainedModel, base: PreTrainedModel, tuned: PreTrainedModel, alpha: float) -> None:
    """Give `into`, a model of the same shape, the weights base + alpha (tuned - base); exact at 0 and at 1."""
    here, there = dict(base.named_parameters()), dict(tuned.named_parameters())
    for name, parameter in into.named_parameters():
        mixed = torch.lerp(here[name].to(parameter.device).float(), there[name].to(parameter.device).float(), alpha)
        parameter.copy_(mixed)


def matching_alpha(divergence: Callable[[float], float], wanted: float) -> float:
    """Find the share of a change at which its KL is as wanted, by bisection: the KL must rise with alpha.

    1 where even the whole change has no larger KL.
    """
    if divergence(1.0) <= wanted:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if divergence(middle) < wanted else (low, middle)
    return (low + high) / 2


@torch.no_grad()
def _log_probabilities(model: PreTrainedModel, text: Text) -> Float[Tensor, "predictions vocabulary"]:
    logits = model(**_inputs(model, text)).logits
    return torch.log_softmax(logits[text.compared.to(logits.device)].float(), dim=-1)


def _streams(model: PreTrainedModel, text: Text) -> Float[Tensor, "layers tokens d_model"]:
    compared = text.compared.to(model.device)
    streams: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[object, ...], output: Tensor) -> None:
        streams.append(output[compared].float())

    with ExitStack() as hooks:
        for block in blocks(model):
            hooks.enter_context(block.register_forward_hook(record))
        model.base_model(**_inputs(model, text))
    return torch.stack(streams)


def _inputs(model: PreTrainedModel, text: Text) -> dict[str, object]:
    named = {"input_ids": text.input_ids, "attention_mask": text.attention_mask, "position_ids": text.position_ids}
    given = {name: ids.to(model.device, torch.long) for name, ids in named.items() if ids is not None}
    return {**given, "use_cache": False}


def _group(name: str, parameter: Tensor) -> str:
    if parameter.ndim < 2 and "norm" in name.lower().replace("ln_", "norm"):
        return "norms"
    if "attn" in name or "attention" in name:
        return "attention"
    return "mlp" if "mlp" in name or "feed_forward" in name or "fc" in name else "other"
