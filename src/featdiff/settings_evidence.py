"""The settings of what stands beside a tail: latent scaling."""

from featdiff.settings import Count, Positive, Settings


class ScalingSettings(Settings):
    """Whether a specific feature is absent from the other models, or only shrunk there (latent scaling)."""

    tokens: Count = 1_000_000
    """Held-out tokens that it is measured on; all of them where fewer are held out."""
    min_active: Count = 100
    """A feature that fired on fewer tokens than this is not measured."""
    max_error: Positive = 0.1
    """nu_eps from which a feature is present in another model, only shrunk. The published cut, 0.2, would still call
    absent what is five times weaker there."""
    max_reconstruction: Positive = 0.5
    """nu_r from which other features rebuild it in another model."""
