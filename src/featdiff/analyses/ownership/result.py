"""Which model owns the features of one crosscoder, and how many are left once latent scaling has asked the others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load_file

from featdiff.attribution import LatentScaling, ScaledTail
from featdiff.attribution.latent_scaling import Ratios
from featdiff.files import Json, load

LARGEST_NU = 1.5
"""Right edge of the histograms of nu; larger values are in their last bin."""
RATIOS = ("feature", "random", "other")


@dataclass(frozen=True)
class Specificity:
    """How many alive features belong how much to one model (Fig. 1 and 3)."""

    counts: tuple[int, ...]
    """In equal bins of the score between 0 and 1."""
    tails: dict[str, int]
    """Above each cut, by the cut, for example "0.8"."""
    tails_l2: dict[str, int]
    """The same by L2 norms."""


@dataclass(frozen=True)
class NuHistogram:
    """Measured alive features by their largest |nu_eps| over the other models, in equal bins from 0 to LARGEST_NU."""

    beyond: tuple[int, ...]
    """Those above the lowest cut."""
    others: tuple[int, ...]
    """All the rest."""
    control: tuple[float, float] | None
    """The middle 95 % of the same number for random directions in the place of those above the cut."""


@dataclass(frozen=True)
class ModelOwnership:
    """The features of one model."""

    specificity: Specificity
    scaled: tuple[ScaledTail, ...]
    """The tail above each cut before and after latent scaling."""
    nu: NuHistogram | None
    """None where the study has no cuts."""

    @property
    def lowest(self) -> ScaledTail:
        """The tail above the lowest cut."""
        return min(self.scaled, key=lambda tail: tail.cut)


@dataclass(frozen=True)
class ScalingRecord:
    """How latent scaling was done."""

    space: Literal["normalised", "raw"]
    tokens: int
    min_active: int
    """Tokens on which a feature must fire to be measured."""
    max_error: float
    """|nu_eps| below which a feature is absent, if |nu_r| is below `max_reconstruction`."""
    max_reconstruction: float
    uncounted: int
    """Features that fired too rarely."""


@dataclass(frozen=True)
class Ownership:
    """Who owns the features of one crosscoder."""

    models: tuple[str, ...]
    """Base first; a feature that all share equally scores 1 / len(models)."""
    features: int
    alive: int
    of: dict[str, ModelOwnership]
    """By model."""
    scaling: ScalingRecord

    @property
    def score(self) -> str:
        """What the score is called: of two models Eq. 4, of more Eq. 8-10."""
        return "NRN" if len(self.models) == 2 else "MAS"

    def summary(self) -> dict[str, dict[str, Json]]:
        """By model the features above each cut, and under "scaled" those left by latent scaling and why others went."""
        return {
            model: {**one.specificity.tails, "alive": self.alive, "scaled": _scaled(one)}
            for model, one in self.of.items()
        }


def _scaled(one: ModelOwnership) -> dict[str, Json]:
    def by_cut(name: str) -> dict[str, Json]:
        return {f"{tail.cut:g}": getattr(tail, name) for tail in one.scaled}

    kept = ("shrunk", "rebuilt", "unmeasured", "random_absent", "other_absent")
    return {**by_cut("absent"), **{name: by_cut(name) for name in kept}}


def load_scaling(folder: Path, name: str) -> LatentScaling:
    """Latent scaling of one crosscoder, from the folder of the stage."""
    found, path = load(Ownership, folder / f"{name}.json"), folder / f"{name}.safetensors"
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete {folder} and run again") from error
    feature, random, other = (
        Ratios(tensors[f"{kind}_nu_error"], tensors[f"{kind}_nu_reconstruction"]) for kind in RATIOS
    )
    return LatentScaling(
        models=found.models,
        space=found.scaling.space,
        feature=feature,
        random=random,
        other=other,
        beta_error=tensors["beta_error"],
        beta_reconstruction=tensors["beta_reconstruction"],
        active=tensors["active"],
        tokens=found.scaling.tokens,
        min_active=found.scaling.min_active,
    )
