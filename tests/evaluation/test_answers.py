import pytest

pytest.importorskip("math_verify")

from featdiff.evaluation.answers import is_equal, is_found


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


@pytest.mark.parametrize(
    ("answer", "mathematical", "found"),
    [
        ("so it is $\\boxed{7}$.", True, True),
        ("The answer is 7", True, True),
        ("one day, a cat", True, False),
        ("one day, a cat", False, True),
        (" \n", False, False),
    ],
)
def test_an_answer_is_in_form_if_it_can_be_extracted(answer: str, mathematical: bool, found: bool) -> None:
    assert is_found(answer, mathematical=mathematical) == found
