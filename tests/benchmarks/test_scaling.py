from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import scaling
from data import mixture
from scaling import SHOWN, Point, Sweep, describe, measured, scaling_figure
from task import Shape

from featdiff.presentation.style import draw

SMALL = Point(Shape(models=2, d_model=16, features=512, tokens=32), 4)


def test_every_point_is_measured_by_every_path() -> None:
    document = measured([Sweep("features", (64,), (SMALL,)), Sweep("models", (1, 2), (SMALL, SMALL))], rounds=1)
    assert [len(sweep["seconds"]) for sweep in document["sweeps"]] == [1, 2]
    for sweep in document["sweeps"]:
        for seconds in sweep["seconds"]:
            assert set(seconds) == set(SHOWN) and all(value > 0 for value in seconds.values())


def test_one_quantity_is_varied_at_a_time() -> None:
    for sweep in scaling.sweeps():
        assert len(sweep.values) == len(sweep.points) and len(set(sweep.points)) == len(sweep.points)
        for point in sweep.points:
            mine, base = {**vars(point.shape), "l0": point.l0}, {**vars(scaling.BASE.shape), "l0": scaling.BASE.l0}
            assert sum(mine[name] != base[name] for name in mine) <= 1
        assert scaling.BASE in sweep.points or sweep.quantity == "active features per token"


def test_data_can_be_made_for_every_point() -> None:
    for point in [point for sweep in scaling.sweeps() for point in sweep.points]:
        rows, _ = mixture(replace(point.shape, models=1, d_model=2, tokens=1), scaling.BASE.l0, 1)
        assert len(rows) == point.shape.features > point.l0


def test_the_figure_shows_the_numbers_in_milliseconds() -> None:
    quantities = ("features", "models", "active features per token", "tokens per batch")
    seconds = [{"dense": 0.2, "compact": 0.1, "sparse": 0.05}, {"dense": 0.4, "compact": 0.2, "sparse": 0.1}]
    document = {"sweeps": [{"quantity": name, "values": [1, 2], "seconds": seconds} for name in quantities]}
    figure = scaling_figure(document)
    assert [axes.get_xlabel() for axes in figure.axes] == list(quantities)
    drawn = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines}
    assert drawn == {"dense": [200, 400], "compact": [100, 200], "sparse": [50, 100]}
    assert "models 1 to 2: dense 200 to 400 ms, compact 100 to 200 ms, sparse 50 to 100 ms" in describe(document)
    ElementTree.fromstring(draw(figure, "scaling", "title", describe(document)).standalone())
