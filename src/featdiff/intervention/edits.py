"""Edits of features, and their effect on one model's residual stream (Sec. 7.1).

a' = a + scale_m sum_k (v_k - f_k) W_dec[k, m]

f_k is the code that the model has, v_k what it is set to. What the crosscoder fails to reconstruct stays as it is.

| reading   | f_k is read from                                 | v_k, patched from another model              |
|-----------|--------------------------------------------------|----------------------------------------------|
| joint     | all models on the same tokens                    | the other's activation in this model's place |
| replicate | the edited model's activation in every slot      | the other's activation in every slot         |
| branch    | the edited model's branch alone, about 1/M of it | the other's branch                           |

An activation comes into another model's slot in normalised units.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder
from featdiff.evaluation.batches import Positions
from featdiff.stats import Direction

CodeReading = Literal["joint", "branch", "replicate"]
CHUNK = 2048
"""Tokens that are encoded at once."""


@dataclass(frozen=True)
class Patch:
    """Every token's own value, read with the activation of `source` where the edited model's was."""

    source: str


@dataclass(frozen=True, eq=False)
class Edit:
    """Set `features` to `value` wherever `positions` allows: 0.0 zeroes them, 3.0 amplifies them (Sec. 7.1).

    The value, one for all features or one for each, is in the crosscoder's gauge. `all` edits every token, `prompt`
    those before the answer, `last_prompt` the last of those, `generated` those after it; padding never is edited.
    Zeroing leaves tokens alone on which the features are silent; setting to 3.0 does not. With `along`, each token
    moves in that direction instead, as far as the features would have moved it. Raises ValueError for a repeated
    feature, a value that is not finite, and values that do not fit the features.
    """

    features: Int[Tensor, " n"]
    value: float | Float[Tensor, " _"] | Patch
    positions: Positions = "all"
    label: str = ""
    """What tables call the edit; empty: by its value."""
    goal: Literal["by value", "decrease", "increase"] = "by value"
    """What the edit should do to accuracy; by value: zeroing lowers it, all else raises it."""
    along: Float[Tensor, " d_model"] | None = None
    """Direction of the change, of any length; None: that of the features' decoders."""

    def __post_init__(self) -> None:
        if not isinstance(self.value, Patch) and not torch.as_tensor(self.value).isfinite().all():
            raise ValueError(f"an edit sets features to {self.value}; give finite values")
        if len(self.features.unique()) < len(self.features):
            raise ValueError(f"an edit names a feature twice among {self.features.tolist()}; name each once")
        if isinstance(self.value, Tensor) and self.value.shape != self.features.shape:
            raise ValueError(f"an edit gives {len(self.value)} values for {len(self.features)} features; give one each")

    @property
    def name(self) -> str:
        """How tables call the edit: "zero" or "set to 3.0"."""
        match self.value:
            case _ if self.label:
                return self.label
            case Patch(source=source):
                return f"patch from {source}"
            case Tensor():
                return "set to values of their own"
            case value:
                return "zero" if value == 0 else f"set to {value:.1f}"

    @property
    def expected(self) -> Direction:
        """What a set of features that controls generalization would do to accuracy."""
        if self.goal == "by value":
            return "decrease" if isinstance(self.value, float | int) and self.value == 0 else "increase"
        return self.goal

    def of(self, features: Int[Tensor, " n"], value: "float | Tensor | Patch | None" = None) -> "Edit":
        """The same edit of other features, at `value` where each has a value of its own."""
        return replace(self, features=features, value=self.value if value is None else value)


def apply(
    edit: Edit,
    residual: Float[Tensor, "batch positions d_model"],
    features: Float[Tensor, "batch positions n"],
    crosscoder: Crosscoder,
    model: str,
    mask: Bool[Tensor, "batch positions"],
    patched: Float[Tensor, "batch positions n"] | None = None,
) -> Float[Tensor, "batch positions d_model"]:
    """a' = a + scale_m sum_k (v - f_k) W_dec[k, m] where `mask` holds, in raw units; a elsewhere.

    `features` are the codes f_k of `edit.features`, in that order, `patched` those of a patch's source. Activations
    whose codes equal the value already keep their bits.
    """
    change = torch.where(mask[..., None], _target(edit, features, patched) - features, 0.0)
    m = crosscoder.index(model)
    directions = crosscoder.scale[m] * crosscoder.W_dec[edit.features, m]
    shift = einsum(change, directions, "batch positions n, n d_model -> batch positions d_model")
    if edit.along is not None:
        shift = shift.norm(dim=-1, keepdim=True) * (edit.along / edit.along.norm()).to(shift)
    return torch.where((change != 0).any(dim=-1, keepdim=True), residual + shift, residual)


@torch.no_grad()
def codes(
    crosscoder: Crosscoder,
    activations: Float[Tensor, "tokens models d_model"],
    model: str,
    reading: CodeReading = "joint",
    source: str | None = None,
) -> Float[Tensor, "tokens features"]:
    """All features as `model` has them by `reading`; with a `source`, the values that a patch from it gives them.

    The models axis is the crosscoder's.
    """
    own = crosscoder.index(model)
    given = own if source is None else crosscoder.index(source)
    match reading:
        case "joint" if given == own:
            return crosscoder.encode(activations)
        case "joint":
            swapped = activations.clone()
            swapped[:, own] = activations[:, given] * (crosscoder.scale[own] / crosscoder.scale[given])
            return crosscoder.encode(swapped)
        case "replicate":
            normalised = activations[:, given, None] / crosscoder.scale[given]
            return crosscoder.encode(normalised * crosscoder.scale[:, None])
        case "branch":
            return crosscoder.encode_branch(activations[:, given], crosscoder.models[given])


def reconstruction(
    crosscoder: Crosscoder, features: Float[Tensor, "tokens features"], model: str
) -> Float[Tensor, "tokens d_model"]:
    """What the crosscoder makes of one model's activations, in raw units: what is left where the error is dropped."""
    m = crosscoder.index(model)
    return (features @ crosscoder.W_dec[:, m] + crosscoder.b_dec[m]) * crosscoder.scale[m]


def _target(
    edit: Edit, features: Float[Tensor, "batch positions n"], patched: Float[Tensor, "batch positions n"] | None
) -> float | Tensor:
    match edit.value:
        case Patch():
            assert patched is not None, "a patch needs the codes of its source"
            return patched
        case Tensor() as values:
            return values.to(features)
        case value:
            return value
