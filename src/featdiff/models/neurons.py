"""Hooks that read and set the MLP neurons of a whole model, and shift its residual stream.

A neuron is an input of the projection by which a block's MLP writes into the residual stream (down_proj, c_proj, fc2).
Neurons are numbered through all blocks: the block times its width, plus the place in the block.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from featdiff.models.residual import blocks

Arguments = tuple[object, ...]


def outlets(model: PreTrainedModel) -> list[nn.Linear | Conv1D]:
    """Projections of all blocks whose inputs are the neurons of their MLPs.

    Such is the one linear map of a block into the residual stream that is no part of its attention. Raises ValueError
    for a model whose blocks have none, or several, such as a mixture of experts; or whose blocks differ in width.
    """
    width = model.config.get_text_config().hidden_size
    found = [_writers(block, width) for block in blocks(model)]
    for number, writers in enumerate(found, start=1):
        if len(writers) != 1:
            raise ValueError(
                f"{type(model).__name__} has {len(writers)} projections of an MLP in block {number}, so its neurons "
                "cannot be told apart; give a model with one MLP per block, or set ways.compare = false"
            )
    outlets = [writers[0] for writers in found]
    if len({_inputs(outlet) for outlet in outlets}) > 1:
        raise ValueError(
            f"the MLPs of {type(model).__name__} differ in width from block to block; set ways.compare = false"
        )
    return outlets


def neurons_per_block(model: PreTrainedModel) -> int:
    """Width of the MLPs. ValueError as `outlets`."""
    return _inputs(outlets(model)[0])


@contextmanager
def reading_neurons(
    model: PreTrainedModel, place: Int[Tensor, " batch"]
) -> Generator[list[Float[Tensor, "batch neurons_of_a_block"]]]:
    """While open, a forward pass leaves each block's neurons at one place of every row, float32, in the list given.

    What an edit has set is what is read, if the edit was begun first: hooks run in the order of their making.
    """
    seen: list[Tensor] = []

    def look(module: nn.Module, arguments: Arguments) -> None:
        values = arguments[0]
        assert isinstance(values, Tensor), "a projection is given its inputs first"
        seen.append(values[torch.arange(len(values), device=values.device), place.to(values.device)].float())

    with ExitStack() as hooks:
        for outlet in outlets(model):
            hooks.enter_context(outlet.register_forward_pre_hook(look))
        yield seen


@contextmanager
def setting_neurons(
    model: PreTrainedModel,
    neurons: Int[Tensor, " n"],
    values: Float[Tensor, " n"],
    mask: Bool[Tensor, "batch positions"],
) -> Generator[None]:
    """While open, these neurons have these values wherever `mask` holds."""
    ways_out = outlets(model)
    width = _inputs(ways_out[0])
    with ExitStack() as hooks:
        for number, outlet in enumerate(ways_out):
            here = neurons // width == number
            if here.any():
                setter = _setter(neurons[here] % width, values[here], mask)
                hooks.enter_context(outlet.register_forward_pre_hook(setter))
        yield


@contextmanager
def shifting_residual(
    model: PreTrainedModel, layers: int, vector: Float[Tensor, " d_model"], mask: Bool[Tensor, "batch positions"]
) -> Generator[None]:
    """While open, `vector` is added to the residual stream after block `layers` wherever `mask` holds."""

    def shift(module: nn.Module, arguments: Arguments, output: Tensor) -> Tensor:
        moved = (output.float() + vector.to(output.device)).to(output)
        return torch.where(mask.to(output.device)[..., None], moved, output)

    with blocks(model)[layers - 1].register_forward_hook(shift):
        yield


def _setter(places: Int[Tensor, " some"], values: Float[Tensor, " some"], mask: Bool[Tensor, "batch positions"]):
    def put(module: nn.Module, arguments: Arguments) -> Arguments:
        given = arguments[0]
        assert isinstance(given, Tensor), "a projection is given its inputs first"
        changed, where = given.clone(), places.to(given.device)
        wanted = values.to(given).expand(*given.shape[:-1], -1)
        changed[..., where] = torch.where(mask.to(given.device)[..., None], wanted, given[..., where])
        return (changed, *arguments[1:])

    return put


def _writers(block: nn.Module, width: int) -> list[nn.Linear | Conv1D]:
    """Linear maps into the residual stream outside of attention."""
    return [
        module
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and "att" not in name.lower() and _outputs(module) == width
    ]


def _inputs(module: nn.Linear | Conv1D) -> int:
    return module.in_features if isinstance(module, nn.Linear) else module.nx


def _outputs(module: nn.Linear | Conv1D) -> int:
    return module.out_features if isinstance(module, nn.Linear) else module.nf
