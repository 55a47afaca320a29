"""The layers above the hook point, run on their own."""

import copy
import inspect
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from featdiff.models.loading import PreTrainedModel
from featdiff.models.residual import blocks


class UpperModel:
    """Layers of a causal language model above the hook point, from a given residual stream to logits.

    It is a copy of the model that shares every parameter and in which the blocks up to `layers` do nothing, the last of
    them but giving out the residual; so no architecture needs to be known, and the model itself is left as it was.
    Raises ValueError when the model has fewer blocks than `layers`.
    """

    def __init__(self, model: PreTrainedModel, layers: int) -> None:
        stack = blocks(model)
        if not 1 <= layers <= len(stack):
            raise ValueError(
                f"the hook point lies after block {layers} of {len(stack)}; choose a layer from 1 to {len(stack)}"
            )
        self.layers, self.whole = layers, model
        self.dtype: torch.dtype = model.dtype
        self._waiting: list[Tensor] = []
        below = [_with_forward(block, _pass_on) for block in stack[: layers - 1]]
        hooked = _with_forward(stack[layers - 1], self._give)
        self._model = _replaced(model, stack, nn.ModuleList([*below, hooked, *stack[layers:]]))
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
        self._waiting[:] = [residual.to(self.dtype)]
        try:
            given = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
            output = self._model(**given, use_cache=False, **options)
            if self._waiting:
                raise ValueError(
                    "the model ran past the hook point: its forward is that of another copy; load it without device map"
                )
        finally:
            self._waiting.clear()
        return output.logits if keep is None or options else output.logits[:, keep]

    def _give(self, hidden_states: Tensor, *arguments: object, **options: object) -> Tensor:
        given = self._waiting.pop()
        assert given.shape == hidden_states.shape, "one residual vector per token"
        return given


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
        _put(parent, name, child)
        parent = child
    _put(parent, last, new)
    return root


def _put(parent: nn.Module, name: str, child: nn.Module) -> None:
    """Exchange a child of a copy; `setattr` would exchange that of the original, whose dictionary the copy shares."""
    vars(parent)["_modules"] = {**vars(parent)["_modules"], name: child}
