"""Numbers as the page writes them."""

from collections.abc import Sequence

from featdiff.config.crosscoder import BatchTopK, JumpReLU, ReLU, Sparsity

Number = int | float
Interval = Sequence[Number]
Unknown = Number | None
"""A number that may not be defined, for example a mean over no items."""

UNDEFINED = "–"


def percent(share: Unknown) -> str:
    """0.2534 as 25.3."""
    if share is None or share != share:
        return UNDEFINED
    return _minus(f"{100 * share:.1f}")


def points(change: Unknown) -> str:
    """A change of a share in percentage points, always signed: -0.034 as −3.4."""
    if change is None or change != change:
        return UNDEFINED
    return _minus(f"{100 * change:+.1f}") if abs(change) >= 0.0005 else "0.0"


def percent_interval(interval: Sequence[Unknown]) -> str:
    """[0.1, 0.25] as [10.0, 25.0]."""
    return f"[{', '.join(percent(bound) for bound in interval)}]"


def points_interval(interval: Sequence[Unknown]) -> str:
    """[-0.1, 0.02] as [−10.0, +2.0]."""
    return f"[{', '.join(points(bound) for bound in interval)}]"


def probability(p: Number) -> str:
    """A p-value with as many digits as it deserves."""
    return f"{p:.2f}" if p >= 0.1 else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def nats(value: Unknown) -> str:
    """0.04213 as 0.042."""
    return UNDEFINED if value is None or value != value else _minus(f"{value:.3f}")


def tokens(value: Unknown) -> str:
    """A mean number of tokens: 47.94 as 47.9."""
    return UNDEFINED if value is None or value != value else f"{value:.1f}"


def tokens_change(value: Unknown) -> str:
    """A change of such a mean, always signed; it has the digits of points."""
    return points(None if value is None else value / 100)


def tokens_interval(interval: Sequence[Unknown]) -> str:
    """[-1.52, 0.2] as [−1.5, +0.2]."""
    return f"[{', '.join(map(tokens_change, interval))}]"


def ratio(value: Unknown) -> str:
    """0.987 as 0.99."""
    return UNDEFINED if value is None or value != value else _minus(f"{value:.2f}")


def mean(values: Sequence[Unknown]) -> Unknown:
    """Of those that are defined; None of none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def count(number: Number) -> str:
    """12345 as 12,345."""
    return f"{number:,}"


def listing(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def plural(number: int, word: str) -> str:
    """1 task, 2 tasks."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def edited(edit: str) -> str:
    """What an edit does to features, to follow them in a sentence: zero as set to 0."""
    return "set to 0" if edit == "zero" else edit


def sparsity(settings: Sparsity) -> str:
    """How a crosscoder was made sparse: L1, beta 2."""
    match settings:
        case ReLU(weight=weight):
            return f"L1, beta {weight:g}"
        case BatchTopK(k=k):
            return f"BatchTopK, k {k}"
        case JumpReLU(weight=weight):
            return f"JumpReLU, weight {weight:g}"


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
