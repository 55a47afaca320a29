"""The features of a crosscoder that one process holds, and all of them together again."""

import torch
from torch import Tensor

from featdiff.crosscoder.feature_blocks import Blocks
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.model import Crosscoder

FEATURE_AXIS = {"W_enc": 2, "b_enc": 0, "W_dec": 0, "log_threshold": 0, "silent_tokens": 0}
"""The axis that runs over features; tensors that are not named have none."""


def feature_axis(name: str) -> int | None:
    """The axis over features of a tensor of `Learner.tensors`; moments have the axis of their parameter."""
    return next((FEATURE_AXIS[part] for part in name.split(".") if part in FEATURE_AXIS), None)


def to_rows(name: str, tensor: Tensor) -> Tensor:
    """A view of the named tensor, its axis over features first, as the parameters lie in memory."""
    axis = feature_axis(name)
    return tensor if axis is None else tensor.movedim(axis, 0)


def from_rows(name: str, rows: Tensor) -> Tensor:
    """The tensor that `to_rows` was given."""
    axis = feature_axis(name)
    return rows if axis is None else rows.movedim(0, axis)


def part_of(crosscoder: Crosscoder, ranks: Ranks) -> Crosscoder:
    """A crosscoder of those features that this process holds; where it holds all, the crosscoder itself."""
    if ranks.feature_shards == 1:
        return crosscoder
    features = crosscoder.features // ranks.feature_shards
    if features * ranks.feature_shards != crosscoder.features:
        raise ValueError(
            f"{crosscoder.features} features cannot be divided among {ranks.feature_shards} processes; "
            "change crosscoder.features or training.feature_shards"
        )
    part = Crosscoder(crosscoder.models, crosscoder.d_model, features, crosscoder.sparsity, crosscoder.seed)
    whole = crosscoder.state_dict()
    part.design = crosscoder.design
    if (blocks := crosscoder.blocks) is not None:
        part.blocks = Blocks(*(ranks.own(tensor, 0) for tensor in (blocks.owned, blocks.shared, blocks.price)))
    part.load_state_dict({name: ranks.own(tensor, feature_axis(name)) for name, tensor in whole.items()})
    return part


@torch.no_grad()
def assemble(crosscoder: Crosscoder, part: Crosscoder, ranks: Ranks) -> None:
    """Copy the parts of all processes into the whole crosscoder."""
    whole, parts = crosscoder.state_dict(), part.state_dict()
    for name, tensor in whole.items():
        tensor.copy_(ranks.whole(parts[name], feature_axis(name)))
