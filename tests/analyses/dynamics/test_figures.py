"""Overlaps with and divided by their floor; rank shifts coloured by direction and distance, blanks counted."""

from dataclasses import replace

import pytest
from made_up_dynamics import made_up, of
from matplotlib.colors import to_rgb, to_rgba

from featdiff.analyses.dynamics.figures import by_alignment, dynamics_pictures, rank_shifts
from featdiff.analyses.dynamics.result import CheckpointOverlap
from featdiff.presentation.picture import Picture
from featdiff.presentation.style import BLUE, INK, ORANGE


@pytest.fixture
def found() -> CheckpointOverlap:
    return replace(made_up(), rank_shift=((0, 3, -1, None),))


def pictures(found: CheckpointOverlap, tuned: str = "rl") -> dict[str, Picture]:
    """By the kind of figure."""
    return {picture.name.split("-1-")[0]: picture for picture in dynamics_pictures({tuned: of(found)}, ("base", "rl"))}


def test_climbing_falling_staying_and_leaving_look_different(found: CheckpointOverlap) -> None:
    (axes,) = rank_shifts(found, "rl").axes
    stays, climbs, falls, leaves = axes.patches

    assert [to_rgb(patch.get_facecolor()) for patch in (stays, climbs, falls)] == [
        to_rgb(INK),
        to_rgb(BLUE),
        to_rgb(ORANGE),
    ]
    assert to_rgba(leaves.get_facecolor())[3] == 0


def test_a_longer_way_is_a_fuller_colour(found: CheckpointOverlap) -> None:
    (axes,) = rank_shifts(found, "rl").axes
    stays, climbs, falls, _ = (to_rgba(patch.get_facecolor())[3] for patch in axes.patches)

    assert stays < falls < climbs == 1.0


def test_features_that_left_are_counted_next_to_the_row(found: CheckpointOverlap) -> None:
    (axes,) = rank_shifts(found, "rl").axes

    assert [text.get_text() for text in axes.texts] == ["1 left"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1 → 2"]


def test_every_overlap_has_its_floor_next_to_it_and_is_divided_by_it() -> None:
    plain, divided = (pictures(made_up())[kind] for kind in ("overlap", "overlap-by-floor"))
    (axes,) = plain.figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "floor"]
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.60", "0.60", "1.00", "0.80", "0.50"]
    assert "65.0 % with itself" in plain.finding and "reach 0.63 of" in divided.finding
    assert divided.numbers["relative"] == [list(row) for row in made_up().relative or ()]


def test_a_floor_at_chance_takes_the_meaning_from_what_is_divided_by_it() -> None:
    said = [pictures(replace(made_up(), noise_floor=floor))["overlap-by-floor"].finding for floor in (0.1, 0.11)]
    assert ["mean nothing" in one for one in said] == [True, False]


def test_rank_shifts_say_how_many_features_are_ranked_and_how_many_leave(found: CheckpointOverlap) -> None:
    assert "Ranked are 3 features" in pictures(made_up())["rank-shift"].finding
    assert "rl, matched: 1 of 3 leave the top 4" in pictures(made_up())["rank-shift"].finding
    assert pictures(found)["rank-shift"].numbers["rank_shift"] == [[0, 3, -1, None]]


def test_where_no_feature_is_ranked_there_are_no_rank_shifts() -> None:
    assert "rank-shift" not in pictures(replace(made_up(), rank_shift=((),)))


def test_all_models_of_one_alignment_stand_before_those_of_the_next() -> None:
    both = of(made_up("swap"), made_up("joint"))
    order = [(tuned, found.alignment) for tuned, found in by_alignment({"sft": both, "rl": both})]
    assert order == [("sft", "joint"), ("rl", "joint"), ("sft", "swap"), ("rl", "swap")]
