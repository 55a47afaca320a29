"""How much each feature contributes to a readout through each model, by integrated gradients.

The activation of model m is what the crosscoder rebuilds of it and an error, which is kept: a^m = decode(f)[m] + e^m.
Along the straight way from no feature to the code f, a readout F of that model gathers

    IE_m(k) = mean_items f_k * mean_s dF(decode(alpha_s f)[m] + e^m) / df_k,    alpha_s = (s - 1/2) / steps

so that sum_k IE_m(k) is about F(a^m) - F(e^m + b_dec), and for a linear F exactly that. What counts is the share of
each model, the causal companion of MAS:

    RelIE_m(k) = |IE_m(k)| / sum_n |IE_n(k)|

A feature without any effect has 0/0; it gets 1/2, as in the work that introduced RelIE (Bayazit et al. 2025), whatever
the number of models, and so lies in no tail.
"""

from collections.abc import Callable

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder

STEPS = 10
"""Points at which gradients are taken (Bayazit et al. 2025)."""
NO_EFFECT = 0.5
"""RelIE of a feature that has no effect through any model."""

Readout = Callable[[Float[Tensor, "items d_model"], str], Float[Tensor, " items"]]
"""One number per item, such as a difference of logits, from raw activations of the model that is named."""


def integrated_effects(
    crosscoder: Crosscoder,
    activations: Float[Tensor, "items models d_model"],
    readout: Readout,
    *,
    steps: int = STEPS,
) -> Float[Tensor, "features models"]:
    """IE_m(k) on raw activations, the mean over items; features are those of the joint encoding.

    `readout` is called `steps` times for each model, with gradients on. ValueError without items or steps, or where it
    does not give one finite number per item that depends on the activations.
    """
    if steps < 1 or not len(activations):
        raise ValueError(f"{steps} steps over {len(activations)} items give no effect; ask for at least 1 of each")
    with torch.no_grad():
        codes = crosscoder.encode(activations)
        error = activations - crosscoder.decode(codes)
    effects = [
        _of_model(crosscoder, codes, error[:, m], model, readout, steps) for m, model in enumerate(crosscoder.models)
    ]
    return torch.stack(effects, dim=1)


def relative_effects(effects: Float[Tensor, "features models"]) -> Float[Tensor, "features models"]:
    """RelIE_m(k) = |IE_m(k)| / sum_n |IE_n(k)|; `NO_EFFECT` where all are zero."""
    sizes = effects.abs()
    total = sizes.sum(dim=1, keepdim=True)
    return torch.where(total > 0, sizes / total.where(total > 0, 1.0), NO_EFFECT)


def _of_model(
    crosscoder: Crosscoder,
    codes: Float[Tensor, "items features"],
    error: Float[Tensor, "items d_model"],
    model: str,
    readout: Readout,
    steps: int,
) -> Float[Tensor, " features"]:
    """IE of all features through one model. The gradient is taken at the activation; the decoder carries it on."""
    m = crosscoder.index(model)
    written = crosscoder.scale[m] * crosscoder.W_dec[:, m].detach()
    constant = error + crosscoder.scale[m] * crosscoder.b_dec[m].detach()
    rebuilt = einsum(codes, written, "i f, f d -> i d")
    slope = torch.zeros_like(rebuilt)
    for step in range(steps):
        residual = (constant + (step + 0.5) / steps * rebuilt).requires_grad_()
        with torch.enable_grad():
            slope += _gradient(readout(residual, model), residual) / steps
    return einsum(codes, slope, written, "i f, i d, f d -> f") / len(codes)


def _gradient(
    value: Float[Tensor, "*shape"], residual: Float[Tensor, "items d_model"]
) -> Float[Tensor, "items d_model"]:
    if value.shape != residual.shape[:1] or not value.isfinite().all():
        raise ValueError(
            f"the readout gave shape {tuple(value.shape)} for {len(residual)} items; give one finite number per item"
        )
    if not value.requires_grad:
        raise ValueError("the readout has no gradient with respect to the activations; detach nothing in it")
    return torch.autograd.grad(value.sum(), residual)[0]
