"""The residual stream of a model at the hook point, and the direct effect of its directions on logits.

The residual stream after block `layers`, counted from 1, is what transformers calls `hidden_states[layers]`.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Stack of blocks of a model: the one outermost list of modules as long as the model is deep.

    Raises ValueError for a model with no such list, or with several.
    """
    depth = model.config.get_text_config().num_hidden_layers
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth}
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outermost) != 1:
        raise ValueError(
            f"{type(model).__name__} has {len(outermost)} lists of {depth} modules ({', '.join(outermost)}); "
            "only models with one stack of blocks can be hooked"
        )
    return lists[outermost[0]]


def residual(
    model: PreTrainedModel,
    layers: int,
    input_ids: Int[Tensor, "batch positions"],
    attention_mask: Int[Tensor, "batch positions"] | None = None,
    position_ids: Int[Tensor, "batch positions"] | None = None,
) -> Float[Tensor, "batch positions d_model"]:
    """Residual stream after block `layers` of a whole or truncated model, float32; the forward pass ends there.

    It equals `hidden_states[layers]` of the full model, save after the last block, where transformers applies the final
    norm and we do not. Position ids that start again at 0, in each sequence first of all, keep attention inside packed
    documents, unless an attention mask is given.
    """
    shape = input_ids.shape
    attention = getattr(model.config, "_attn_implementation", None) or ""
    if attention_mask is None and position_ids is not None and attention.startswith("flash"):
        # transformers hands flash attention the bounds of packed documents for one sequence only.
        input_ids, position_ids = input_ids.reshape(1, -1), position_ids.reshape(1, -1)
    ids = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
    given = {name: None if one is None else one.to(model.device, torch.long) for name, one in ids.items()}
    # With a cache, transformers does not see that documents are packed.
    return run_to(model, layers, given | {"use_cache": False}).view(*shape, -1).float()


def run_to(model: PreTrainedModel, layers: int, given: Mapping[str, object]) -> Float[Tensor, "batch new d_model"]:
    """Run a forward pass on the arguments `given` up to block `layers`; the residual stream there, as computed."""

    def stop(module: nn.Module, arguments: tuple[object, ...], output: Tensor) -> None:
        raise _Reached(output)

    try:
        with blocks(model)[layers - 1].register_forward_hook(stop):
            model.base_model(**given)
    except _Reached as reached:
        return reached.residual
    raise AssertionError(f"{type(model).__name__} did not run its block {layers}")


class _Reached(Exception):
    """Ends a forward pass and carries its residual stream out."""

    def __init__(self, residual: Tensor) -> None:
        self.residual = residual


@torch.no_grad()
def token_logits(model: PreTrainedModel, directions: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows vocabulary"]:
    """Direct effect of directions of the residual stream on logits: each through the final norm and the LM head, alone.

    Only differences within a row mean something: the norm has its own scale for every residual stream.
    """
    inside = {id(module) for module in blocks(model).modules()}
    outside = [module for module in model.base_model.modules() if id(module) not in inside]
    norms = [module for module in outside if isinstance(w := getattr(module, "weight", None), Tensor) and w.ndim == 1]
    read = directions.to(model.device, model.dtype)
    if norms:
        bias = getattr(norms[-1], "bias", None)
        read = norms[-1](read) - (0 if bias is None else bias)
    head = model.get_output_embeddings()
    assert head is not None, "a causal language model has an LM head"
    return head(read).float()
