"""One card for every feature that is shown by itself: what it reacts to, what it writes, and whose it is."""

from dataclasses import dataclass

Shares = dict[str, float | None]
"""By model; None where the number is not defined."""


@dataclass(frozen=True)
class Context:
    """A piece of text; the token at `position` excites the feature by `value`."""

    value: float
    token_ids: tuple[int, ...]
    pieces: tuple[str, ...]
    """The tokens as text."""
    position: int
    place: int
    """Of the token in the whole text."""

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


Contexts = dict[str, tuple[Context, ...]]
"""Of one feature, best first, by reading: joint, and each model."""


@dataclass(frozen=True)
class TopContexts:
    """The contexts of some features in a text."""

    contexts: tuple[Contexts, ...]
    """Feature by feature."""
    tokens: int
    """That were searched."""


Tokens = tuple[tuple[str, float], ...]
"""Tokens that a decoder direction raises most, and how far above the mean token in standard deviations."""


@dataclass(frozen=True)
class FeatureCard:
    """The evidence for one feature of one crosscoder."""

    feature: int
    why: tuple[str, ...]
    density: float | None
    mas: Shares
    cosine_to_base: Shares
    owner: str
    """The model with the largest score."""
    nu_error: Shares
    """Of latent scaling along the direction of `owner`, as is `nu_reconstruction`."""
    nu_reconstruction: Shares
    nearest: dict[str, Tokens]
    """By model."""
    examples: Contexts


@dataclass(frozen=True)
class FeatureCards:
    """The features of one crosscoder that are shown."""

    models: tuple[str, ...]
    tokens: int
    """That were searched."""
    features: tuple[FeatureCard, ...]
