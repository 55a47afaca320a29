"""Run a whole model together with the rest of its lineup, and change its residual stream at the hook point.

Joint encoding needs the residual streams of all models on the same tokens, also on tokens that the model has only just
generated. So whenever the whole model runs, the other models of the lineup run on the tokens that it is given, up to
the hook point. With a KV cache, their keys and values lie in the model's own cache, behind its layers: what is done to
the cache (copied, repeated, reordered, cropped) is done to theirs.
"""

from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from featdiff.models.loading import Lineup
from featdiff.models.residual import blocks, run_to

_GIVEN_ALIKE = ("attention_mask", "position_ids", "cache_position")
"""What a forward pass of the other models takes from that of the whole model, besides the tokens."""
_CACHE_KEYWORDS = ("cache", "past_key_values")
"""What transformers calls the KV cache among a model's arguments: since 5.24, and before."""


@dataclass(frozen=True, eq=False)
class Tapped:
    """Activations of a forward pass of the whole model at the hook point."""

    activations: Float[Tensor, "batch new models d_model"]
    """Residual streams of the models, float32, the model's own in its place; 0 for models that do not run."""
    place: Int[Tensor, "1 new"]
    """Column of each token among all that the model has read, cached ones and padding counted."""
    real: Bool[Tensor, "batch new"]
    """False on padding, as far as the attention mask says."""


Change = Callable[[Tensor, Tapped], Tensor]
"""From the model's residual stream `[batch new d_model]`, in its precision, to what its upper half reads instead."""


@contextmanager
def running_beside(
    model: PreTrainedModel, lineup: Lineup, name: str, change: Change, beside: Collection[str]
) -> Generator[None]:
    """While open, every forward pass of `model`, the lineup's `name`, goes through `change` at the hook point.

    The models named in `beside` run on the same tokens; those that `change` does not look at can be left out.
    Below the hook point nothing changes, so neither do the residual streams that `change` is given. Raises ValueError
    when the lineup has no such model; when a forward pass gets a KV cache of fixed size, one that was filled outside,
    or one that is not found among its arguments; and for a cache while the lineup's models take turns on their device.
    """
    if missing := {name, *beside} - {*lineup.names}:
        raise ValueError(f"the lineup holds {', '.join(lineup.names)}, not {', '.join(missing)}; load those models too")
    others = [index for index, other in enumerate(lineup.names) if other != name and other in beside]
    waiting: list[Tapped] = []

    def below(
        module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        given = dict(zip(signature(model.forward).parameters, arguments, strict=False)) | options
        cache = _cache(model, given)
        waiting[:] = [_tapped(lineup, others, given, model, cache)]
        rest = {key: value for key, value in given.items() if key not in _CACHE_KEYWORDS}
        return (), rest | _cache_argument(model, cache)

    def at_tap(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        tapped = waiting.pop()
        tapped.activations[:, :, lineup.names.index(name)] = output.to(tapped.activations)
        return change(output, tapped).to(output)

    tap = blocks(model)[lineup.layers - 1]
    with model.register_forward_pre_hook(below, with_kwargs=True), tap.register_forward_hook(at_tap):
        yield


def _tapped(
    lineup: Lineup, others: list[int], given: Mapping[str, Any], model: PreTrainedModel, cache: Cache | None
) -> Tapped:
    """The other models' residual streams on the tokens given, and room for the model's own."""
    input_ids = given["input_ids"]
    room = torch.zeros(*input_ids.shape, len(lineup.names), lineup.d_model, device=lineup.device)
    past = 0 if cache is None else cache.get_seq_length()
    if others and cache is None:
        names = tuple(lineup.names[index] for index in others)
        rest = replace(lineup, names=names, models=tuple(lineup.models[index] for index in others))
        room[:, :, others] = rest.residuals(input_ids, given.get("attention_mask"), given.get("position_ids"))
    elif cache is not None and others:
        if lineup.turns:
            raise ValueError(
                "a model cannot generate under edits while the lineup's models take turns on their device; "
                "give the lineup memory for all of them, or edit by the model's own branch"
            )
        parts = _companions(cache, model, [lineup.models[index] for index in others], lineup.layers)
        for index, part in zip(others, parts, strict=True):
            room[:, :, index] = _cached_residual(lineup.models[index], lineup.layers, given, part).to(room)
    place = past + torch.arange(input_ids.shape[1], device=lineup.device)
    mask = given.get("attention_mask")
    if mask is None:
        real = torch.ones_like(input_ids, dtype=torch.bool)
    elif mask.ndim == 2:
        real = mask[:, -input_ids.shape[1] :].bool()
    else:
        raise ValueError("edits need an attention mask of one number per token, to tell padding; give none of 4 axes")
    return Tapped(room, place[None], real.to(lineup.device))


def _cache(model: PreTrainedModel, given: Mapping[str, Any]) -> Cache | None:
    """The cache of this forward pass: the one that is given, a new one, or none.

    Raises ValueError where a cache must be there and is not found: with a new one in its place the other models would
    read each token without those before it, and nothing would tell.
    """
    caches = {key: value for key, value in given.items() if isinstance(value, Cache)}
    known = {key: given[key] for key in _CACHE_KEYWORDS if given.get(key) is not None}
    if caches.keys() != known.keys() or len(known) > 1:
        found = ", ".join(f"{key} = a {type(value).__name__}" for key, value in (known | caches).items())
        raise ValueError(
            f"edits need one KV cache, a transformers Cache given as cache or past_key_values, not {found}"
        )
    if known:
        return next(iter(known.values()))
    mask = given.get("attention_mask")
    if mask is not None and mask.ndim == 2 and mask.shape[1] > given["input_ids"].shape[1]:
        raise ValueError(
            f"{mask.shape[1]} tokens have been read and {given['input_ids'].shape[1]} are given, but no KV cache was "
            f"found among {', '.join(given)}; run under edits with use_cache=False"
        )
    wanted = given.get("use_cache")
    if model.config.use_cache if wanted is None else wanted:
        return DynamicCache(config=model.config)
    return None


def _cache_argument(model: nn.Module, cache: Cache | None) -> dict[str, Cache]:
    """The cache under the keyword that `model` knows; empty without a cache."""
    if cache is None:
        return {}
    for keyword in _CACHE_KEYWORDS:
        if keyword in signature(model.forward).parameters:
            return {keyword: cache}
    raise ValueError(f"{type(model).__name__} takes no KV cache that edits know; run under edits with use_cache=False")


def _companions(cache: Cache, model: PreTrainedModel, others: list[PreTrainedModel], layers: int) -> list[Cache]:
    """Caches of the other models that keep their keys and values in `cache`, behind the layers of `model`."""
    own = len(blocks(model))
    if not isinstance(cache, DynamicCache):
        raise ValueError(f"edits need a KV cache that grows, not a {type(cache).__name__}; leave cache_implementation")
    if len(cache.layers) <= own:
        if cache.get_seq_length() > 0:
            raise ValueError("the KV cache was filled without edits; fill it under the same edits")
        cache.layers.extend(DynamicCache(config=model.config).layers[len(cache.layers) :])
        for other in others:
            cache.layers.extend(DynamicCache(config=other.config).layers[:layers])
    starts = range(own, own + layers * len(others), layers)
    assert len(cache.layers) == own + layers * len(others), "a cache has room for every model of the lineup"
    return [Cache(layers=cache.layers[start : start + layers]) for start in starts]


@torch.no_grad()
def _cached_residual(
    model: PreTrainedModel, layers: int, given: Mapping[str, Any], cache: Cache
) -> Float[Tensor, "batch new d_model"]:
    """Residual stream after block `layers` on the new tokens alone; `cache` grows by them."""
    alike = {key: given[key].to(model.device) for key in _GIVEN_ALIKE if isinstance(given.get(key), Tensor)}
    options = _cache_argument(model.base_model, cache) | {"use_cache": True}
    return run_to(model, layers, {"input_ids": given["input_ids"].to(model.device), **options, **alike})
