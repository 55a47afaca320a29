"""The tail against drift: every model by its KL, and the control through every crosscoder."""

from dataclasses import replace

from made_up_drift import CONTROLLED, DRIFT

from featdiff.analyses.drift.figures import drift_pictures

MODELS = ("base", "sft", "rl")


def test_without_pair_crosscoders_there_is_no_figure() -> None:
    bare = replace(DRIFT, rows=tuple(replace(one, tails=None) for one in DRIFT.rows))
    assert list(drift_pictures(bare, MODELS)) == []


def test_the_figure_has_every_model_by_its_divergence() -> None:
    (picture,) = drift_pictures(DRIFT, MODELS)
    (axes,) = picture.figure.axes
    lines = {str(line.get_label()): line.get_xydata().tolist() for line in axes.lines}  # pyright: ignore
    assert lines["sft, training"] == [[0.3, 20.0], [0.8, 90.0]]
    assert lines["sft, mixed with the base"] == [[0.25, 31.0], [0.4, 50.0], [0.8, 90.0]]
    assert "sft-1 20 at 0.3" in picture.finding and "rl 12 at 0.25" in picture.finding


def test_the_figure_has_axes_for_every_crosscoder_where_there_is_a_control() -> None:
    (picture,) = drift_pictures(CONTROLLED, MODELS)
    found = [{str(line.get_label()): line.get_xydata().tolist() for line in axes.lines} for axes in picture.figure.axes]  # pyright: ignore
    assert [one["rft, training"] for one in found] == [[[0.3, 4.0]], [[0.3, 7.0]]]
    assert found[0]["sft, training"] == [[0.3, 20.0], [0.8, 90.0]] and found[1]["rl, training"] == [[0.25, 12.0]]
    assert "sft, training" not in found[1] and "rl, training" not in found[0]
    assert "1 model on the way to rft, read in rl's place: rft 7 at 0.3" in picture.finding
