"""Shape of a transformer: its parameters by group, and the FLOPs of one token. Nothing here imports torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder-only transformer; parameters are those of one block unless they say otherwise."""

    layers: int
    d_model: int
    attention: int  # heads times their size: width of the queries
    keys: int  # width of the keys, and of the values; smaller under grouped-query attention
    vocabulary: int
    embedding: int  # parameters of the token embedding
    block: int
    active: int  # weights that a token is multiplied with; fewer than all in a mixture of experts
    head: int  # all other parameters of the model: the last norm, and the LM head where it is not the embedding

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return self.below(self.layers) + self.head

    @property
    def block_values(self) -> int:
        """Values per token that a block holds: residuals, and about 4 for every 3 rows of its matrices."""
        return 4 * (self.d_model + self.active // (3 * self.d_model))

    @property
    def cached_values(self) -> int:
        """Values per token in the cache of keys and values."""
        return 2 * self.layers * self.keys

    def below(self, layers: int) -> int:
        """Parameters of the embedding and of the first `layers` blocks."""
        return self.embedding + layers * self.block

    def forward(self, attended: float, *, layers: int | None = None, head: bool = True) -> float:
        """FLOPs of a token that passes `layers` blocks (None: all) and attends to `attended` positions: 2 per weight, 4
        per position and unit of the queries."""
        depth = self.layers if layers is None else layers
        return depth * (2 * self.active + 4 * attended * self.attention) + 2 * self.d_model * self.vocabulary * head


def shape_of(path: str, *, trust_remote_code: bool = False) -> Shape:
    """The shape of the model at `path`: a folder, or a hub id that is in the cache or public and known.

    ValueError, in one line, where its config.json cannot be read or is not on this machine.
    """
    from featdiff.models.shape_counting import counted_shape

    return counted_shape(path, trust_remote_code)
