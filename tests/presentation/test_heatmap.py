"""Every share is written in its cell and shades it."""

from featdiff.presentation.heatmap import share_heatmap
from featdiff.presentation.style import BLUE, INK, PAPER

SHARES = [[1.0, 0.25], [0.25, 1.0]]


def test_each_cell_says_its_share_in_its_place() -> None:
    (axes,) = share_heatmap(SHARES, ["1", "2"], BLUE, "overlap", "checkpoint").axes
    written = {text.get_position(): text.get_text() for text in axes.texts}

    assert written == {(0, 0): "1.00", (1, 0): "0.25", (0, 1): "0.25", (1, 1): "1.00"}


def test_shading_is_the_share_and_text_stays_legible_on_it() -> None:
    (axes,) = share_heatmap(SHARES, ["1", "2"], BLUE, "overlap", "checkpoint").axes
    shaded = [patch.get_alpha() for patch in axes.patches if patch.get_alpha() is not None]

    assert shaded == [1.0, 0.25, 0.25, 1.0]
    assert [text.get_color() for text in axes.texts] == [PAPER, INK, INK, PAPER]


def test_a_share_of_nothing_is_not_shaded() -> None:
    (axes,) = share_heatmap([[0.0]], ["a"], BLUE, "overlap", "task").axes

    assert all(patch.get_alpha() is None for patch in axes.patches)


def test_what_stands_beside_the_square_has_its_own_column_and_an_unknown_share_a_dash() -> None:
    shares = [[1.0, None], [2.5, 1.0]]
    (axes,) = share_heatmap(shares, ["1", "2"], BLUE, "overlap", "checkpoint", beside={"floor": [0.8, None]}).axes

    assert [text.get_text() for text in axes.texts] == ["1.00", "–", "2.50", "1.00", "0.80", "–"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "floor"]
    assert max(patch.get_alpha() or 0.0 for patch in axes.patches) == 1.0
    assert axes.get_xlim()[1] > max(text.get_position()[0] for text in axes.texts)
