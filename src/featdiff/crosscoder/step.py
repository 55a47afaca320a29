"""One training step of one crosscoder: exact gradients of `Crosscoder.loss` written out by hand, then clipped Adam.

With codes f, x^ = f W_dec + b_dec, E = 2 (x^ - x) / tokens, and w the sparsity weight under ReLU (0 under BatchTopK):

dL/dW_dec = f^T E + (w / tokens) sum_tokens f_k W_dec[k, m] / |W_dec[k, m]|      dL/db_dec = sum_tokens E
G = (E W_dec^T + (w / tokens) sum_m |W_dec[k, m]|) where f > 0
dL/dW_enc = x^T G                                                                dL/db_enc = sum_tokens G

Only the encoder's forward product is dense; the others follow the active features. AuxK adds its own terms for dead
features.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from featdiff.crosscoder.codes import Codes, batch_top_k_codes, relu_codes
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import BatchTopK, ReLU, auxiliary_features, updated_threshold

GUESS = 0.8
"""Share of the last batch's cut at which BatchTopK starts to look for its cut; a low guess costs time, a high one a
second look."""


@dataclass(frozen=True)
class Gradients:
    """What a batch said, beside the gradients that it left in the parameters' `grad`."""

    reconstruction: Float[Tensor, ""]
    sparsity: Float[Tensor, ""]
    cut: Float[Tensor, ""]
    codes: Codes


class Learner:
    """A crosscoder in training: its weights, Adam's moments, and how long each feature has been silent."""

    def __init__(self, crosscoder: Crosscoder, *, lr: float, betas: tuple[float, float], clip: float) -> None:
        self.crosscoder, self._clip = crosscoder, clip
        self.parameters = dict(crosscoder.named_parameters())
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self.adam = torch.optim.Adam(self.parameters.values(), lr=lr, betas=betas, fused=True)
        for parameter in self.parameters.values():
            self.adam.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        self._last_cut = 0.0  # only saves time, and so is no part of the state
        self.silent_tokens = torch.zeros(crosscoder.features, dtype=torch.int64, device=crosscoder.W_dec.device)

    @torch.no_grad()
    def gradients(self, normalised: Float[Tensor, "tokens models d_model"], ramp: float) -> Gradients:
        """Fill the parameters' `grad` for one batch; `ramp` in [0, 1] multiplies the weight of L1."""
        return gradients(self.crosscoder, normalised, ramp, self.dead(), GUESS * self._last_cut)

    @torch.no_grad()
    def apply(self, found: Gradients, tokens: int, lr: float) -> None:
        """Clip the gradients to their largest global norm, take one Adam step, and count who was silent."""
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self._clip)
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        self.silent_tokens += tokens
        self.silent_tokens[found.codes.sum() > 0] = 0
        if isinstance(self.crosscoder.sparsity, BatchTopK):
            self.crosscoder.threshold.copy_(updated_threshold(self.crosscoder.threshold, found.cut))
            self._last_cut = float(found.cut)

    def dead(self) -> Bool[Tensor, " features"]:
        """Features that take part in AuxK; none under ReLU."""
        match self.crosscoder.sparsity:
            case ReLU():
                return torch.zeros_like(self.silent_tokens, dtype=torch.bool)
            case BatchTopK(dead_after_tokens=tokens):
                return self.silent_tokens >= tokens

    def tensors(self) -> dict[str, Tensor]:
        """All that a resumed run needs, under stable names."""
        moments = {
            f"adam.{name}.{moment}": self.adam.state[parameter][moment]
            for name, parameter in self.parameters.items()
            for moment in ("step", "exp_avg", "exp_avg_sq")
        }
        return {**self.crosscoder.state_dict(), **moments, "silent_tokens": self.silent_tokens}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])


def gradients(
    crosscoder: Crosscoder,
    normalised: Float[Tensor, "tokens models d_model"],
    ramp: float,
    dead: Bool[Tensor, " features"],
    guess: float = 0.0,
) -> Gradients:
    """Overwrite `grad` of every parameter with the gradient of the loss on one batch of normalised activations.

    `guess` at BatchTopK's cut saves time and changes no bit; 0 is no guess.
    """
    tokens, features = len(normalised), crosscoder.features
    x = normalised.reshape(tokens, -1)
    W_enc, W_dec = _rows(crosscoder.W_enc), crosscoder.W_dec.view(features, -1)
    row_norms = crosscoder.W_dec.norm(dim=-1)
    norms = row_norms.sum(dim=-1)
    pre = torch.addmm(crosscoder.b_enc, x, W_enc.T)
    codes, cut = _codes(crosscoder, pre, norms, guess)

    error = codes.times(W_dec).add_(crosscoder.b_dec.view(-1)).sub_(x)
    reconstruction = error.square().sum() / tokens
    weight = ramp * crosscoder.sparsity.weight / tokens if isinstance(crosscoder.sparsity, ReLU) else 0.0
    totals, pull = codes.sum(), error * (2 / tokens)
    sampled = codes.sampled(pull, W_dec, weight * norms)

    _grad(crosscoder.W_dec).copy_(codes.transposed_times(pull).view_as(crosscoder.W_dec))
    _grad(crosscoder.b_dec).copy_(pull.sum(dim=0).view_as(crosscoder.b_dec))
    _rows(_grad(crosscoder.W_enc)).copy_(sampled.transposed_times(x))
    _grad(crosscoder.b_enc).copy_(sampled.sum())
    if weight:
        shares = weight * totals[:, None] / row_norms.clamp_min(torch.finfo(row_norms.dtype).tiny)
        _grad(crosscoder.W_dec).addcmul_(crosscoder.W_dec, shares[:, :, None])
    if isinstance(crosscoder.sparsity, BatchTopK):
        sparsity = _auxiliary_gradients(crosscoder, x, pre, error, dead)
    else:
        sparsity = (totals @ norms) / tokens
    return Gradients(reconstruction, sparsity, cut, codes)


def _codes(
    crosscoder: Crosscoder, pre: Float[Tensor, "tokens features"], norms: Float[Tensor, " features"], guess: float
) -> tuple[Codes, Float[Tensor, ""]]:
    match crosscoder.sparsity:
        case ReLU():
            return relu_codes(pre), pre.new_tensor(torch.inf)
        case BatchTopK(k=k):
            return batch_top_k_codes(pre, norms, k * len(pre), guess)


def _auxiliary_gradients(
    crosscoder: Crosscoder,
    x: Float[Tensor, "tokens width"],
    pre: Float[Tensor, "tokens features"],
    error: Float[Tensor, "tokens width"],
    dead: Bool[Tensor, " features"],
) -> Float[Tensor, ""]:
    """Add AuxK's gradients, which reach the dead features only, and return its value."""
    assert isinstance(crosscoder.sparsity, BatchTopK)
    index = dead.nonzero()[:, 0]
    if not len(index):
        return error.new_zeros(())
    rows = crosscoder.W_dec.view(len(dead), -1)[index]
    count = crosscoder.sparsity.aux_k or max(1, crosscoder.d_model // 2)
    codes = auxiliary_features(pre[:, index], torch.ones_like(index, dtype=torch.bool), count)
    missing = torch.addmm(error, codes, rows)
    pull = missing * (2 * crosscoder.sparsity.aux_weight / len(x))
    sampled = (pull @ rows.T) * (codes > 0)
    _grad(crosscoder.W_dec).view(len(dead), -1).index_add_(0, index, codes.T @ pull)
    _rows(_grad(crosscoder.W_enc)).index_add_(0, index, sampled.T @ x)
    _grad(crosscoder.b_enc).index_add_(0, index, sampled.sum(dim=0))
    return missing.square().sum() / len(x)


def _rows(W_enc: Float[Tensor, "models d_model features"]) -> Float[Tensor, "features width"]:
    """The encoder as it lies in memory, one row per feature."""
    return W_enc.permute(2, 0, 1).view(W_enc.shape[2], -1)


def _grad(parameter: torch.nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
