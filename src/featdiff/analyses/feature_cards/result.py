"""One card for every feature that is shown by itself: what it reacts to, what it writes, and whose it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Number = int | float
Unknown = Number | None


@dataclass(frozen=True)
class Context:
    """A piece of text; the token at `position` excites the feature by `value`."""

    value: Number
    pieces: Sequence[str]
    position: int

    @property
    def before(self) -> str:
        """The text up to the token."""
        return "".join(self.pieces[: self.position])

    @property
    def token(self) -> str:
        """The token that excites the feature."""
        return self.pieces[self.position]

    @property
    def after(self) -> str:
        """The text behind it."""
        return "".join(self.pieces[self.position + 1 :])


@dataclass(frozen=True)
class FeatureCard:
    """The evidence for one feature of one crosscoder.

    `nu_error` and `nu_reconstruction` are those of latent scaling along the direction of `owner`, the model with the
    largest score. `nearest` are tokens with their distance above the mean token in standard deviations. `contexts` are
    by reading: joint, and each model.
    """

    lineup: str
    feature: int
    why: Sequence[str]
    density: Number
    owner: str
    mas: Mapping[str, Unknown]
    cosine_to_base: Mapping[str, Unknown]
    nu_error: Mapping[str, Unknown]
    nu_reconstruction: Mapping[str, Unknown]
    nearest: Mapping[str, Sequence[tuple[str, Number]]]
    contexts: Mapping[str, Sequence[Context]]
