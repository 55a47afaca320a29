"""The one check of generated answers to mathematical questions, in evaluation and as a reward (Sec. 4, A.4)."""

from math_verify import parse, verify

SECONDS = 5
"""Time limit of each parse and of each comparison; an answer that takes longer is wrong. Ordinary ones take
milliseconds."""


def is_equal(answer: str, right: str) -> bool:
    """Whether math-verify finds an expression in `answer` equal to `right`: plain, in $...$ or in \\boxed{...}."""
    gold = right if "\\boxed" in right or "$" in right else f"${right}$"
    wanted, found = parse(gold, parsing_timeout=SECONDS), parse(answer, parsing_timeout=SECONDS)
    return verify(wanted, found, timeout_seconds=SECONDS)


def is_found(answer: str, *, mathematical: bool) -> bool:
    """Whether an answer can be extracted from a generated text: an expression that math-verify finds, or any text."""
    return bool(parse(answer, parsing_timeout=SECONDS)) if mathematical else bool(answer.strip())
