"""Settings of the sensitivity analysis: what is changed, one thing at a time, and how what follows is compared."""

from typing import Annotated, Literal

from annotated_types import Gt, Lt, MinLen
from pydantic import Field, model_validator

from featdiff.config.base import IMMATERIAL, Count, Positive, Settings
from featdiff.config.crosscoder import Alignment, Encoder, Objective, Shared, Sparsity


class SensitivitySettings(Settings):
    """How much of the result hangs on choices of the dictionary; each differs from the study's own in one thing."""

    strengths: Annotated[tuple[Positive, ...], MinLen(1)] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Multiples of the sparsity (of beta; of 1 / k) at which every choice is trained, so that choices are compared at
    equal L0 and at equal variance explained, never at equal beta. 1 is the study's own, and must be among them."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Further seeds of the study's own crosscoder: what they change is what a choice is measured by."""
    objective: tuple[Annotated[Objective, Field(discriminator="kind")], ...] = ()
    """Objectives in place of the study's (Eq. 3, 7: squared error)."""
    sparsity: tuple[Annotated[Sparsity, Field(discriminator="kind")], ...] = ()
    """Sparsities in place of the study's (Eq. 3, 7: L1)."""
    shared: tuple[Shared, ...] = ()
    """Blocks of shared features (the paper has none)."""
    encoder: tuple[Annotated[Encoder, Field(discriminator="kind")], ...] = ()
    """Encoders in place of the study's (Eq. 1, 5: linear)."""
    align: tuple[Annotated[Alignment, Field(discriminator="kind")], ...] = ()
    """Alignments of the models beforehand (the paper has none)."""
    layers: tuple[Count, ...] = ()
    """Layers in place of the study's (Sec. 4: the middle one)."""
    norm_p: tuple[Literal[1, 2], ...] = ()
    """Norms of the scores in place of the study's (Eq. 4, 8-10: L1); nothing is trained for them."""
    space: tuple[Literal["normalised", "raw"], ...] = ()
    """Units of the scores in place of the study's; nothing is trained for them."""
    controls: Count = 20
    """Sets of features matched by activity that every effect is compared with."""
    items: Count | None = None
    """Items of each task on which models are edited; unset: as in `intervention`."""
    rbo_p: Annotated[float, Gt(0), Lt(1)] = 0.9
    """Persistence of the rank-biased overlap: the first 1 / (1 - p) ranks have most of the weight."""
    tokens: Count = 10_000
    """Held-out tokens on whose codes features of two layers are paired; all of them where fewer are held out."""
    together: Annotated[Count | None, IMMATERIAL] = None
    """Crosscoders of one layer that train on one pass of the models; unset: all. Fewer need less memory; with
    `activations.cache` the models still run over the corpus once."""

    @model_validator(mode="after")
    def _the_studys_own_is_among_them(self) -> "SensitivitySettings":
        if 1.0 not in self.strengths or len(set(self.strengths)) != len(self.strengths):
            found = ", ".join(f"{strength:g}" for strength in self.strengths)
            raise ValueError(f"the strengths are {found}; give each once, and 1, the study's own, among them")
        return self
