"""The selected effect and each control draw lie where their numbers say."""

from dataclasses import replace

import numpy as np
import pytest
from jaxtyping import Float
from matplotlib.collections import Collection
from matplotlib.lines import Line2D

from featdiff.analyses.intervention.figures import effect_plot, pictures
from featdiff.analyses.intervention.result import DoseCurve, TaskEffect
from featdiff.intervention.effect_records import ControlDraws, SetRecord

CURVE = DoseCurve(
    "rl", "critical", 2, (0.0, 1.0), (-0.3, 0.0), (-0.1, 0.0), (-0.2, -0.05), (0.0, 0.05), {"a": (-0.3, 0.0)}
)


def test_every_control_draw_is_a_dot_at_its_change_in_the_row_of_its_task(effects: list[TaskEffect]) -> None:
    (axes,) = effect_plot(effects[:5], "edit").axes
    for row, (cloud, effect) in enumerate(zip(axes.collections, effects[:5], strict=True)):
        values = effect.sets["held_out"].control.values
        assert places(cloud)[:, 0].tolist() == pytest.approx([100 * value for value in values])
        assert abs(places(cloud)[:, 1] - row).max() < 0.5


def test_the_diamond_is_the_change_on_held_out_items_and_the_ring_that_on_all(effects: list[TaskEffect]) -> None:
    (axes,) = effect_plot(effects[:1], "edit").axes
    drawn = {
        marker: [xs(line)[0] for line in axes.lines if line.get_marker() == marker and xs(line)] for marker in "Do"
    }
    change = effects[0].sets["held_out"].change
    assert change
    assert drawn["D"] == pytest.approx([100 * change]) and drawn["o"] == pytest.approx([-2.0])


def test_a_task_without_held_out_items_has_no_diamond(effects: list[TaskEffect]) -> None:
    (axes,) = effect_plot([without_held_out(effects[0])], "edit").axes
    assert not [line for line in axes.lines if line.get_marker() == "D" and xs(line)]
    assert axes.get_yticklabels()[0].get_text().endswith("n = 0")


def without_held_out(effect: TaskEffect) -> TaskEffect:
    old = effect.sets["held_out"]
    nothing = ControlDraws(0, None, [None, None], [])
    empty = SetRecord(None, None, 0, [-1, 1], None, old.flips, None, {}, nothing, nothing, 1.0, "underpowered")
    return replace(effect, sets={**effect.sets, "held_out": empty})


def test_the_text_alternative_of_an_effect_names_change_and_control(effects: list[TaskEffect]) -> None:
    picture, other, *_ = pictures(effects, [])
    held_out = effects[0].sets["held_out"]
    assert held_out.change and held_out.control.mean
    assert picture.finding.startswith("5 features set to 0 in rl, held-out items:")
    wanted = f"reversal −{100 * abs(held_out.change):.1f} points against −{100 * abs(held_out.control.mean):.1f}"
    assert wanted in picture.finding and picture.name != other.name


def test_a_dose_curve_comes_with_its_numbers_and_says_them() -> None:
    plain = replace(CURVE, measured_on="all", control=(), control_low=(), control_high=())
    first, second = pictures([], [CURVE, plain])
    assert "−30.0 at 0 and 0.0 at 1" in first.finding and "features matched by activity −10.0 and 0.0" in first.finding
    assert "matched" not in second.finding and "all items" in second.title
    assert first.numbers["selected"] == (-0.3, 0.0) and first.name != second.name


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata(), dtype=float).tolist()


def places(cloud: Collection) -> Float[np.ndarray, "draws 2"]:
    return np.asarray(cloud.get_offsets(), dtype=float)
