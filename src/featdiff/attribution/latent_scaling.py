"""Latent scaling: whether a feature is absent from the other models, or only shrunk there.

L1 erases from a model what contributes little to it, and a concept that is shared can be split into one feature a
model. Both look specific by decoder norms. So the activations are asked themselves. Feature k, read along its direction
d = W_dec[k, t] in a *reference* model t, explains of a target y the share

    beta_k(y) = argmin_b sum_i |b f_k(i) d - y_i|^2 = sum_i f_k(i) <d, y_i> / (|d|^2 sum_i f_k(i)^2)

with two targets in every model m: its error once k's own part is put back, and its reconstruction,

    y_eps[m] = a[m] - (a^[m] - f_k W_dec[k, m])        y_r[m] = a^[m]

and both are compared with what the same direction explains in the reference itself:

    nu_eps[m | t] = beta(y_eps[m]) / beta(y_eps[t])    nu_r[m | t] = beta(y_r[m]) / beta(y_r[t])

nu_eps near 0: what the dictionary leaves of m holds nothing of the feature; clearly above: m has it, and the penalty
shrank it away (complete shrinkage). nu_r clearly above 0: other features rebuild it in m (latent decoupling). A feature
is specific where both are small; a shared one has nu_eps near 1. Both look along the direction of t only: a feature
that m holds at an angle theta counts cos(theta).

Controls put another direction in place of d in the numerator, and keep the feature's own denominator: a ratio of two
chance numbers has no scale. `random` is a random direction of equal norm, orthogonal to the feature's decoder in all
models; `other` is that of a random other feature, brought to equal norm. They say what a feature that is truly absent
scores.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.activations.stream import Activations
from featdiff.attribution.scores import Attribution
from featdiff.crosscoder.model import Crosscoder

BLOCK = 512
"""Features whose sums over one batch are in memory at a time."""

MAX_ERROR = 0.1
"""nu_eps from which a feature counts as present, only shrunk."""

MAX_RECONSTRUCTION = 0.5
"""nu_r from which a feature counts as rebuilt by others."""


@dataclass(frozen=True, eq=False)
class Ratios:
    """nu of every feature, model m and reference t; 1 where m = t, NaN where it is not defined."""

    error: Float[Tensor, "features models references"]
    """nu_eps[m | t]."""
    reconstruction: Float[Tensor, "features models references"]
    """nu_r[m | t]."""

    def elsewhere(self, reference: int) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
        """The largest |nu_eps| and the largest |nu_r| over all models but the reference; NaN where one is.

        An opposite sign counts as presence: a feature that m writes backwards is not absent from it.
        """
        others = [m for m in range(self.error.shape[1]) if m != reference]
        error, reconstruction = (nu[:, others, reference].abs() for nu in (self.error, self.reconstruction))
        return error.amax(dim=1), reconstruction.amax(dim=1)


@dataclass(frozen=True, eq=False)
class LatentScaling:
    """nu_eps and nu_r of all features for every pair of models, with the same for two kinds of control directions.

    Not defined, and NaN, are features that fired on fewer than `min_active` tokens, that have no decoder in the
    reference, or whose direction explains nothing there (beta <= 0). An `other` control needs both of its features.
    `beta_error[k, t]` and `beta_reconstruction[k, t]` are the denominators; a feature that fits its own reference well
    has beta_error near 1.
    """

    models: tuple[str, ...]
    space: Literal["normalised", "raw"]
    feature: Ratios
    random: Ratios
    other: Ratios
    beta_error: Float[Tensor, "features references"]
    beta_reconstruction: Float[Tensor, "features references"]
    active: Int[Tensor, " features"]
    """Tokens on which each feature fired."""
    tokens: int
    min_active: int

    @property
    def uncounted(self) -> int:
        """Features that fired too rarely to be measured."""
        return int((self.active < self.min_active).sum())

    def nu_error(self, model: str, reference: str) -> Float[Tensor, " features"]:
        """nu_eps[model | reference]."""
        return self.feature.error[:, self.index(model), self.index(reference)]

    def nu_reconstruction(self, model: str, reference: str) -> Float[Tensor, " features"]:
        """nu_r[model | reference]."""
        return self.feature.reconstruction[:, self.index(model), self.index(reference)]

    def index(self, model: str) -> int:
        """Position of `model` on the axes models and references."""
        if model not in self.models:
            raise ValueError(f"latent scaling knows no model {model!r}; it compared {', '.join(self.models)}")
        return self.models.index(model)


@dataclass(frozen=True)
class ScaledTail:
    """One tail before and after latent scaling: before = absent + shrunk + rebuilt + unmeasured.

    `before` counts alive features whose score for `model` is above `cut`. Of these, `shrunk` have |nu_eps| of at least
    `max_error` in some other model; else `rebuilt` have |nu_r| of at least `max_reconstruction` in one; `absent` are
    below both in all other models: the tail that is left. `unmeasured` have no nu.

    `random_absent` and `other_absent` are the shares of the tail's features whose control direction is called absent by
    the same rule: what a tail of truly absent features would keep. Far below 1, the cuts lie within the noise, and the
    tail after scaling is too small. None where no feature of the tail has such a control.
    """

    model: str
    cut: float
    before: int
    absent: int
    shrunk: int
    rebuilt: int
    unmeasured: int
    random_absent: float | None
    other_absent: float | None


def latent_scaling(
    crosscoder: Crosscoder,
    batches: Iterable[Activations],
    *,
    space: Literal["normalised", "raw"] = "normalised",
    min_active: int = 100,
    seed: int = 0,
) -> LatentScaling:
    """Measure nu_eps and nu_r for every pair of models in one pass; batches may hold more models than are read.

    In `raw` space nu[m | t] is scale[m] / scale[t] times the normalised one, as for `Attribution`. Sums over tokens are
    float64, [features models references] of them; beside these live one decoder's worth of control directions (float32
    [features d_model]) and, while a batch is summed, BLOCK x 2 models x d_model float64. Work beyond encode and decode
    follows the active features. `seed` draws the controls.
    """
    (found,) = latent_scalings([crosscoder], batches, space=space, min_active=min_active, seed=seed)
    return found


@torch.no_grad()
def latent_scalings(
    crosscoders: Sequence[Crosscoder],
    batches: Iterable[Activations],
    *,
    space: Literal["normalised", "raw"] = "normalised",
    min_active: int = 100,
    seed: int = 0,
) -> tuple[LatentScaling, ...]:
    """`latent_scaling` of several crosscoders in one pass over tokens that hold the models of all of them."""
    if min_active < 1:
        raise ValueError(f"{min_active=}, but nothing can be measured without an active token; ask for at least 1")
    if alone := [list(one.models) for one in crosscoders if len(one.models) < 2]:
        raise ValueError(f"latent scaling compares models; this crosscoder reads {alone[0]}")
    directions = [_directions(crosscoder, seed) for crosscoder in crosscoders]
    sums = [_Sums.empty(crosscoder) for crosscoder in crosscoders]
    tokens = 0
    for batch in batches:
        for crosscoder, to, of in zip(crosscoders, sums, directions, strict=True):
            values = batch.values[:, crosscoder.columns(batch.models)].to(crosscoder.W_dec.device)
            features = crosscoder.encode(values)
            rebuilt = crosscoder.decode(features)
            targets = torch.stack([crosscoder.normalise(values - rebuilt), crosscoder.normalise(rebuilt)], dim=1)
            to.add(features, targets, of)
        tokens += len(batch.values)
    if not tokens:
        raise ValueError("there are no tokens to measure on; give at least one batch of activations")
    measured = zip(crosscoders, sums, directions, strict=True)
    return tuple(_result(one, own, of, space, min_active, tokens) for one, own, of in measured)


def scaled_tails(
    attribution: Attribution,
    scaling: LatentScaling,
    model: str,
    cuts: Sequence[float] = (0.8, 0.9),
    *,
    max_error: float = MAX_ERROR,
    max_reconstruction: float = MAX_RECONSTRUCTION,
) -> tuple[ScaledTail, ...]:
    """The tails of one model before and after latent scaling, and what the controls of their features score.

    The default cut of 0.1 is half of the published 0.2: a concept five times weaker elsewhere is not absent there.
    """
    if attribution.models != scaling.models or len(attribution.alive) != len(scaling.active):
        raise ValueError(
            f"scores are of {len(attribution.alive)} features of {list(attribution.models)}, latent scaling of "
            f"{len(scaling.active)} of {list(scaling.models)}; measure both on one crosscoder"
        )
    reference, alive, scores = scaling.index(model), attribution.alive.cpu(), attribution[model].cpu()

    def share_absent(control: Ratios, tail: Bool[Tensor, " features"]) -> float | None:
        error, reconstruction = control.elsewhere(reference)
        measured = tail & ~(error.isnan() | reconstruction.isnan())
        absent = (error < max_error) & (reconstruction < max_reconstruction)
        return float(absent[measured].double().mean()) if measured.any() else None

    error, reconstruction = scaling.feature.elsewhere(reference)
    unmeasured = error.isnan() | reconstruction.isnan()
    shrunk = ~unmeasured & (error >= max_error)
    rebuilt = ~unmeasured & ~shrunk & (reconstruction >= max_reconstruction)
    absent = ~(unmeasured | shrunk | rebuilt)

    def tail(cut: float) -> ScaledTail:
        before = alive & (scores > cut)
        return ScaledTail(
            model=model,
            cut=cut,
            before=int(before.sum()),
            absent=int((before & absent).sum()),
            shrunk=int((before & shrunk).sum()),
            rebuilt=int((before & rebuilt).sum()),
            unmeasured=int((before & unmeasured).sum()),
            random_absent=share_absent(scaling.random, before),
            other_absent=share_absent(scaling.other, before),
        )

    return tuple(tail(cut) for cut in cuts)


@dataclass(frozen=True, eq=False)
class _Directions:
    """What targets are projected on. `random` rows are unit vectors or NaN, `other` names a feature each.

    Inner products are float64, `own[k, m, t]` = <W_dec[k, m], W_dec[k, t]> and `cross[k, m, t]` = <W_dec[k, m],
    W_dec[other_k, t]>; `norm` is |W_dec[k, t]|.
    """

    decoder: Float[Tensor, "features models d_model"]
    random: Float[Tensor, "features d_model"]
    other: Int[Tensor, " features"]
    own: Float[Tensor, "features models references"]
    cross: Float[Tensor, "features models references"]
    norm: Float[Tensor, "features references"]


def _directions(crosscoder: Crosscoder, seed: int) -> _Directions:
    generator = torch.Generator().manual_seed(seed)
    decoder = crosscoder.W_dec.detach().float()
    drawn = torch.randn(decoder.shape[0], decoder.shape[2], generator=generator).to(decoder.device)
    # One cycle through all features: nobody is its own control, unless it is alone.
    order = torch.randperm(len(decoder), generator=generator)
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    other = other.to(decoder.device)

    random, own, cross = [], [], []
    for block in torch.arange(len(decoder), device=decoder.device).split(BLOCK):
        rows, others = decoder[block].double(), decoder[other[block]].double()
        own.append(einsum(rows, rows, "k m d, k t d -> k m t"))
        random.append(_orthogonal(drawn[block].double(), rows, own[-1]).float())
        cross.append(einsum(rows, others, "k m d, k t d -> k m t"))
    products = torch.cat(own)
    norm = torch.diagonal(products, dim1=1, dim2=2).sqrt()
    return _Directions(decoder, torch.cat(random), other, products, torch.cat(cross), norm)


def _orthogonal(
    drawn: Float[Tensor, "features d_model"],
    rows: Float[Tensor, "features models d_model"],
    products: Float[Tensor, "features models references"],
) -> Float[Tensor, "features d_model"]:
    """Unit vectors along `drawn` without its part in the span of `rows`; NaN where nothing is left."""
    inverse = torch.linalg.pinv(products, rtol=1e-6, hermitian=True)  # rows of two models may be parallel, or zero
    weights = einsum(inverse, rows, drawn, "k m t, k t d, k d -> k m")
    left = drawn - einsum(weights, rows, "k m, k m d -> k d")
    norm = left.norm(dim=-1, keepdim=True)
    return torch.where(norm > 1e-3 * drawn.norm(dim=-1, keepdim=True), left / norm, torch.nan)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over tokens, in float64. Axis `targets`: error a - a^, reconstruction a^."""

    active: Int[Tensor, " features"]
    squares: Float[Tensor, " features"]
    """sum f_k^2"""
    own: Float[Tensor, "features targets models references"]
    """sum f_k <W_dec[k, t], y[m]>"""
    random: Float[Tensor, "features targets models"]
    """sum f_k <random_k, y[m]>"""
    other: Float[Tensor, "features targets models references"]
    """sum f_k <W_dec[other_k, t], y[m]>"""

    @staticmethod
    def empty(crosscoder: Crosscoder) -> "_Sums":
        features, models, device = crosscoder.features, len(crosscoder.models), crosscoder.W_dec.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(features, *shape, dtype=torch.float64, device=device)

        active = torch.zeros(features, dtype=torch.int64, device=device)
        return _Sums(active, zeros(), zeros(2, models, models), zeros(2, models), zeros(2, models, models))

    def add(
        self,
        features: Float[Tensor, "tokens features"],
        targets: Float[Tensor, "tokens targets models d_model"],
        directions: _Directions,
    ) -> None:
        """Add one batch. A feature's targets are summed, weighted by its code, before they are projected: then every
        direction costs the same however often the feature fires."""
        fired = (features > 0).sum(dim=0)
        self.active.add_(fired)
        self.squares.add_(features.double().square().sum(dim=0))
        wide = rearrange(targets, "t y m d -> t (y m d)").double()
        for block in rearrange(fired.nonzero(), "fired 1 -> fired").split(BLOCK):
            codes = features[:, block].T.double().to_sparse()
            shape = {"y": targets.shape[1], "m": targets.shape[2]}
            summed = rearrange(torch.sparse.mm(codes, wide), "k (y m d) -> k y m d", **shape)
            own, other = (directions.decoder[which].double() for which in (block, directions.other[block]))
            self.own[block] += einsum(summed, own, "k y m d, k t d -> k y m t")
            self.other[block] += einsum(summed, other, "k y m d, k t d -> k y m t")
            self.random[block] += einsum(summed, directions.random[block].double(), "k y m d, k d -> k y m")


def _result(
    crosscoder: Crosscoder,
    sums: _Sums,
    directions: _Directions,
    space: Literal["normalised", "raw"],
    min_active: int,
    tokens: int,
) -> LatentScaling:
    counted, other = sums.active >= min_active, directions.other
    paired = counted & counted[other] & (other != torch.arange(len(other), device=other.device))
    energy = (directions.norm * sums.squares[:, None])[:, None, None, :]  # |d_t| sum f^2
    length, other_length = (norm[:, None, None, :] for norm in (directions.norm, directions.norm[other]))
    of_own = (sums.own + _put_back(sums, directions.own)) / (energy * length)
    of_other = (sums.other + _put_back(sums, directions.cross)) / (energy * other_length)
    of_random = sums.random[..., None] / energy  # a unit vector; what is put back is orthogonal to it

    denominators = torch.diagonal(of_own, dim1=2, dim2=3)
    scale = crosscoder.scale.detach().double() if space == "raw" else torch.ones_like(denominators[0, 0])
    factor = scale[:, None] / scale

    def ratios(betas: Tensor, defined: Bool[Tensor, " features"]) -> Ratios:
        nu = betas / denominators[:, :, None, :] * factor
        known = defined[:, None, None, None] & (denominators > 0)[:, :, None, :] & nu.isfinite()
        nu = torch.where(known, nu, torch.nan)
        error, reconstruction = nu.float().cpu().unbind(dim=1)
        return Ratios(error, reconstruction)

    beta_error, beta_reconstruction = denominators.float().cpu().unbind(dim=1)
    return LatentScaling(
        models=crosscoder.models,
        space=space,
        feature=ratios(of_own, counted),
        random=ratios(of_random, counted),
        other=ratios(of_other, paired),
        beta_error=beta_error,
        beta_reconstruction=beta_reconstruction,
        active=sums.active.cpu(),
        tokens=tokens,
        min_active=min_active,
    )


def _put_back(
    sums: _Sums, products: Float[Tensor, "features models references"]
) -> Float[Tensor, "features targets models references"]:
    """sum f_k <d_t, f_k W_dec[k, m]>, which y_eps has beyond the error; the reconstruction has it already."""
    error = products * sums.squares[:, None, None]
    return torch.stack([error, torch.zeros_like(error)], dim=1)
