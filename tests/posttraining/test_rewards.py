import sys
from pathlib import Path

import pytest

from featdiff.posttraining.rewards import final_answer, reward_function


@pytest.mark.parametrize(
    ("completion", "answer", "reward"),
    [
        ("7", "7", 1.0),
        (" 7.\n8", "7", 1.0),  # the first line counts where there is no marker
        ("8\n7", "7", 0.0),
        ("three and four is 7", "7", 0.0),
        ("8? answer: 6. ANSWER: 7.", "7", 1.0),  # the last marker counts, in any case
        ("answer: 7. answer: 6", "7", 0.0),
        ("answer:\n7\nnext question", "7", 1.0),
        ("answer: 7 apples", "7", 0.0),
        ("", "7", 0.0),
        ("answer:", "7", 0.0),
        ("Answer: A", "a", 0.0),
        ("etc.", "etc.", 1.0),
    ],
)
def test_exact_match_compares_the_final_answer(completion: str, answer: str, reward: float) -> None:
    assert reward_function("exact_match")(completion, answer) == reward


def test_a_final_answer_loses_only_one_full_stop() -> None:
    assert final_answer("answer:  3...") == "3.."


@pytest.mark.parametrize(
    ("completion", "answer", "reward"),
    [
        (r"so it is \boxed{\frac{2}{4}}", "1/2", 1.0),
        (r"so it is \boxed{0.5}", r"\frac{1}{2}", 1.0),
        (r"\boxed{x + 1}", "1+x", 1.0),
        (r"\boxed{3}", "4", 0.0),
        ("no idea", "4", 0.0),
        (r"the answer is $4$", r"\boxed{4}", 1.0),
    ],
)
def test_math_verify_compares_values_with_and_without_boxes(completion: str, answer: str, reward: float) -> None:
    assert reward_function("math_verify")(completion, answer) == reward


def test_contains_looks_for_the_answer_anywhere() -> None:
    contains = reward_function("contains")
    assert (contains("a dog sat", "dog"), contains("a cat sat", "dog")) == (1.0, 0.0)


def test_a_reward_of_ones_own_is_imported_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_reward.py").write_text("def longer(text, answer):\n    return len(text) > len(answer)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert reward_function("own_reward:longer")("abc", "a") == 1.0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nonsense", "unknown; use exact_match"),
        ("no_such_module_anywhere:f", "cannot be imported"),
        ("math:no_such_function", "cannot be imported"),
        ("math:pi", "is no function but a float"),
    ],
)
def test_a_reward_that_cannot_be_had_is_refused(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        reward_function(name)


def test_a_reward_that_returns_no_number_is_refused_when_it_does() -> None:
    with pytest.raises(ValueError, match=r"os\.path:join returned 'a/b'; a finite number is wanted"):
        reward_function("os.path:join")("a", "b")
