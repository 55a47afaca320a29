"""The selected effect and each control draw lie where their numbers say."""

from dataclasses import replace

import numpy as np
import pytest
from jaxtyping import Float
from matplotlib.collections import Collection
from matplotlib.lines import Line2D

from featdiff.analyses.intervention.figures import effect_plot
from featdiff.report.data import ReportData


def test_every_control_draw_is_a_dot_at_its_change(study: ReportData) -> None:
    effects = study.effects[:2]
    (axes,) = effect_plot(effects, "edit").axes

    for cloud, effect in zip(axes.collections, effects, strict=True):
        assert places(cloud)[:, 0].tolist() == pytest.approx([100 * value for value in effect.control.values])


def test_dots_stay_in_the_row_of_their_task(study: ReportData) -> None:
    (axes,) = effect_plot(study.effects[:5], "edit").axes

    for row, cloud in enumerate(axes.collections):
        assert abs(places(cloud)[:, 1] - row).max() < 0.5


def test_the_diamond_is_the_change_on_the_items_of_the_controls(study: ReportData) -> None:
    effect = study.effects[0]
    (axes,) = effect_plot([effect], "edit").axes
    diamonds = [xs(line)[0] for line in axes.lines if line.get_marker() == "D" and xs(line)]
    change = effect.sets["held_out"].change

    assert change
    assert diamonds == pytest.approx([100 * change])


def test_the_ring_is_the_change_on_all_items(study: ReportData) -> None:
    (axes,) = effect_plot(study.effects[:1], "edit").axes
    rings = [xs(line)[0] for line in axes.lines if line.get_marker() == "o" and xs(line)]

    assert rings == pytest.approx([-2.0])


def test_an_effect_without_that_set_shows_its_controls_only(study: ReportData) -> None:
    (axes,) = effect_plot([replace(study.effects[0], sets={})], "edit").axes

    assert not [line for line in axes.lines if line.get_marker() == "D" and xs(line)]
    assert axes.get_yticklabels()[0].get_text().endswith("n = 0")


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata(), dtype=float).tolist()


def places(cloud: Collection) -> Float[np.ndarray, "draws 2"]:
    return np.asarray(cloud.get_offsets(), dtype=float)
