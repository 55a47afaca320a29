"""Memory limit on logits: the rows of text on which whole models are compared at a time."""

LOGIT_BYTES = 24
"""Per logit while three passes of a model are compared: log-probabilities of each, and as much for their KL."""
AT_ONCE = 2 << 30
"""Bytes of logits that are held, unless a single row has more."""


def rows_at_once(positions: int, vocabulary: int) -> int:
    """Rows of so many positions whose logits are held together.

    >>> rows_at_once(1024, 151_936), rows_at_once(256, 512)
    (1, 682)
    """
    return max(1, AT_ONCE // (LOGIT_BYTES * positions * vocabulary))
