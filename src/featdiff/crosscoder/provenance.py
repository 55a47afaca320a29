"""Where a crosscoder comes from: its seed, the weights that it began with, and the order of the tokens.

Comparing indices across separately trained crosscoders, as the paper does, has no meaning unless all three are equal.
So they are noted before training, and travel with the crosscoder in config.json.
"""

from dataclasses import dataclass
from hashlib import sha256

from featdiff.crosscoder.model import Crosscoder


@dataclass(frozen=True)
class Origin:
    """What a crosscoder began with; the digests are equal where the weights, and the tokens in their order, are."""

    seed: int
    initial_weights: str
    data_order: str


def note_origin(crosscoder: Crosscoder, data_order: str) -> None:
    """Note where a crosscoder that is about to be trained comes from; `data_order` is a digest of the token stream."""
    crosscoder.provenance |= {"initial_weights": weights_digest(crosscoder), "data_order": data_order}


def origin_of(crosscoder: Crosscoder) -> Origin | None:
    """Where a crosscoder comes from; None where that was not noted."""
    match crosscoder.provenance:
        case {"initial_weights": str(weights), "data_order": str(order)}:
            return Origin(crosscoder.seed, weights, order)
        case _:
            return None


def weights_digest(crosscoder: Crosscoder) -> str:
    """A digest of the parameters, by name, shape and bytes."""
    digest = sha256()
    for name, parameter in crosscoder.named_parameters():
        values = parameter.detach().cpu().contiguous()
        digest.update(f"{name} {list(values.shape)} {values.dtype}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]
