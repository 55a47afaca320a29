"""Numbers written as words, by hand-made examples."""

import pytest

from featdiff.presentation import words


def test_a_share_is_written_in_percent() -> None:
    assert words.percent(0.2534) == "25.3"
    assert words.percent(-0.2) == "−20.0"


def test_a_change_is_always_signed_except_where_it_rounds_to_nothing() -> None:
    assert words.points(0.034) == "+3.4"
    assert words.points(-0.034) == "−3.4"
    assert words.points(-0.0001) == "0.0"


def test_what_is_undefined_is_a_dash() -> None:
    assert words.percent(None) == words.points(None) == words.percent(float("nan")) == "–"
    assert words.points_interval([None, None]) == "[–, –]"


def test_a_mean_number_of_tokens_and_its_change_have_one_digit() -> None:
    assert words.tokens(47.94) == "47.9" and words.tokens(None) == "–"
    assert words.tokens_interval([-1.52, 0.2]) == "[−1.5, +0.2]"
    assert words.tokens_change(None) == "–" and words.tokens_change(0.01) == "0.0"


def test_an_edit_reads_on_from_the_features() -> None:
    assert words.edited("zero") == "set to 0"
    assert words.edited("set to 3.0") == "set to 3.0"


def test_intervals_are_written_with_both_bounds() -> None:
    assert words.percent_interval([0.1, 0.25]) == "[10.0, 25.0]"
    assert words.points_interval((-0.1, 0.02)) == "[−10.0, +2.0]"


@pytest.mark.parametrize(("p", "text"), [(0.5, "0.50"), (0.0196, "0.020"), (0.0001, "< 0.001"), (1, "1.00")])
def test_a_p_value_has_the_digits_that_it_deserves(p: float, text: str) -> None:
    assert words.probability(p) == text


@pytest.mark.parametrize(
    ("items", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_a_listing_reads_like_a_sentence(items: list[str], text: str) -> None:
    assert words.listing(items) == text


def test_counts_have_thousands_and_plurals() -> None:
    assert words.count(12345) == "12,345"
    assert words.plural(1, "task") == "1 task"
    assert words.plural(1200, "task") == "1,200 tasks"
