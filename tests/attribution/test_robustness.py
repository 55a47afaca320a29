"""Reading a curve at an equal abscissa, and the rule by which a choice matters."""

import math

import pytest

from featdiff.attribution.robustness import (
    Measurement,
    bracketing_points,
    interpolate_at,
    prediction_interval,
    robustness_of_similarity,
    robustness_of_value,
)

NAN = math.nan


def seeds(*values: float) -> list[Measurement]:
    return [Measurement(value) for value in values]


def test_a_curve_is_read_between_its_points_in_the_logarithm() -> None:
    numbers = [Measurement(0.0, -1.0, 1.0, 0.2, 0.4), Measurement(1.0, 0.0, 4.0, 0.4, 0.8)]
    found = interpolate_at([100.0, 1.0], numbers, 10.0)  # half-way in log L0
    assert (found.value, found.low, found.high) == pytest.approx((0.5, -0.5, 2.5))
    assert (found.chance, found.chance_high) == pytest.approx((0.3, 0.6))
    assert interpolate_at([100.0, 1.0], numbers, 100.0) == interpolate_at([100.0, 1.0], numbers, 101.0) == numbers[0]


def test_nothing_is_read_beyond_the_ends_of_a_curve() -> None:
    numbers = [Measurement(0.0), Measurement(1.0)]
    assert math.isnan(interpolate_at([8.0, 4.0], numbers, 9.0).value) and math.isnan(
        interpolate_at([8.0, 4.0], numbers, 2.0).value
    )
    assert math.isnan(interpolate_at([], [], 2.0).value)
    assert math.isnan(interpolate_at([8.0, 2.0], [Measurement(0.0), Measurement(NAN)], 4.0).value)


def test_a_number_is_read_from_the_points_that_enclose_it() -> None:
    xs = [100.0, 50.0, 25.0, 12.0]
    assert (
        bracketing_points(xs, 30.0) == (1, 2)
        and bracketing_points(xs, 25.0) == (2,)
        and bracketing_points(xs, 200.0) == ()
    )
    known = [Measurement(float(at)) if at in bracketing_points(xs, 30.0) else Measurement(NAN) for at in range(4)]
    assert 1 < interpolate_at(xs, known, 30.0).value < 2


def test_the_prediction_interval_of_two_values_is_students() -> None:
    # mean 1, deviation sqrt 2, t(1) = 12.706
    half = 12.7062 * math.sqrt(2) * math.sqrt(1.5)
    assert prediction_interval([0.0, 2.0]) == pytest.approx((1 - half, 1 + half), rel=1e-4)


@pytest.mark.parametrize(
    ("choice", "verdict"),
    [(0.25, "robust"), (0.35, "robust"), (0.42, "undecided"), (0.9, "not robust"), (NAN, "not measured")],
)
def test_a_number_may_change_as_much_as_seeds_change_it(choice: float, verdict: str) -> None:
    # The largest change by a seed is 0.05; the prediction interval of 0.3, 0.32, 0.27, 0.35 is 0.31 +- 0.120.
    assert robustness_of_value(Measurement(choice), Measurement(0.3), seeds(0.32, 0.27, 0.35)) == verdict


def test_what_may_be_the_error_of_a_count_is_undecided() -> None:
    none = [Measurement(0.0, 0.0, 0.01)] * 3  # seeds that find nothing predict nothing
    assert robustness_of_value(Measurement(0.002, 0.0003, 0.011), none[0], none) == "undecided"
    assert robustness_of_value(Measurement(0.04, 0.02, 0.06), none[0], none) == "not robust"


def test_one_seed_is_no_yardstick() -> None:
    for few in (seeds(0.3), seeds(0.3, NAN)):
        assert (
            robustness_of_value(Measurement(0.3), Measurement(0.3), few)
            == robustness_of_similarity(Measurement(0.9), few)
            == "no yardstick"
        )


@pytest.mark.parametrize(
    ("choice", "verdict"),
    [(1.0, "robust"), (0.5, "robust"), (0.45, "undecided"), (0.1, "not robust"), (NAN, "not measured")],
)
def test_a_choice_may_be_as_unlike_the_reference_as_the_least_like_seed(choice: float, verdict: str) -> None:
    others = [Measurement(value, chance=0.01, chance_high=0.1) for value in (0.5, 0.56, 0.54)]
    assert robustness_of_similarity(Measurement(choice), others) == verdict


def test_seeds_that_agree_no_better_than_chance_are_no_yardstick() -> None:
    others = [Measurement(0.5, chance_high=0.1), Measurement(0.1, chance_high=0.1)]
    assert robustness_of_similarity(Measurement(0.9), others) == "no yardstick"
