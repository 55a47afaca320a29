import pytest

pytest.importorskip("math_verify")

from featdiff.causal.evaluation.answers import is_equal


@pytest.mark.parametrize(
    ("answer", "right", "equal"),
    [
        ("so it is $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}", True),
        ("The answer is 0.5", "\\frac{1}{2}", True),
        ("The answer is 0.6", "\\frac{1}{2}", False),
        ("\\boxed{073}", "73", True),
        ("one day, a cat", "73", False),
        ("", "73", False),
        ("$\\left( 3, \\frac{\\pi}{2} \\right)$", "$(3, \\pi/2)$", True),
    ],
)
def test_answers_are_compared_as_mathematics(answer: str, right: str, equal: bool) -> None:
    assert is_equal(answer, right) == equal
