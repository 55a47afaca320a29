"""Generated answers to mathematical questions, checked by math-verify (Sec. 4, A.4: exact match)."""

from math_verify import parse, verify

_SECONDS = 30
"""An answer that takes longer to compare is wrong; ordinary ones take milliseconds, on any machine."""


def is_equal(answer: str, right: str) -> bool:
    """Whether math-verify finds an expression in `answer` equal to `right`: plain, in $...$ or in \\boxed{...}."""
    gold = right if "\\boxed" in right or "$" in right else f"${right}$"
    wanted, found = parse(gold, parsing_timeout=_SECONDS), parse(answer, parsing_timeout=_SECONDS)
    return bool(verify(wanted, found, timeout_seconds=_SECONDS))


def is_found(answer: str, *, mathematical: bool) -> bool:
    """Whether an answer can be extracted from a generated text: an expression that math-verify finds, or any text."""
    return bool(parse(answer, parsing_timeout=_SECONDS)) if mathematical else bool(answer.strip())
