from dataclasses import replace

import numpy as np
import pytest

from featdiff.intervention.effect_records import (
    ControlDraws,
    ControlRecord,
    ControlTestDraws,
    FlipsRecord,
    PooledRecord,
    SetRecord,
)
from featdiff.intervention.pooled_effects import TaskChange, pooled_effect, task_change
from featdiff.stats import Flips

DRAWS = 99


def part(n: int, lost: int, controls: float) -> TaskChange:
    width = np.linspace(-0.02, 0.02, DRAWS)
    return TaskChange(
        Flips(n, lost, 0),
        {"activity-matched": controls + width, "uniform alive": controls + width / 2},
    )


def pooled_record(*parts: TaskChange) -> PooledRecord:
    return pooled_effect(parts, "decrease", resamples=500, confidence=0.95, seed=0).record()


def test_tasks_count_alike_in_the_change_and_in_every_control() -> None:
    found = pooled_effect([part(40, 20, -0.1), part(400, 40, -0.3)], "decrease", resamples=500, confidence=0.95, seed=0)
    assert found.change.value == pytest.approx(-(0.5 + 0.1) / 2)
    assert found.controls["activity-matched"] == pytest.approx(-0.2 + np.linspace(-0.02, 0.02, DRAWS))
    assert found.flips == Flips(440, 60, 0) and found.verdict == "supported" and found.p == pytest.approx(1 / 100)


def test_many_tasks_with_too_few_items_each_can_show_together_what_none_shows_alone() -> None:
    few = part(5, 4, -0.1)
    assert pooled_record(few).verdict == "underpowered"
    assert pooled_record(*[few] * 6).verdict == "supported"


def test_what_random_features_do_on_average_is_no_claim() -> None:
    assert pooled_record(part(60, 30, -0.5), part(60, 6, -0.1)).verdict == "not distinguishable from random features"


def test_a_claim_without_items_says_nothing() -> None:
    empty = pooled_record(part(0, 0, 0.0))
    assert (empty.n, empty.change, empty.p, empty.verdict) == (0, None, 1.0, "underpowered")


def test_a_stored_set_gives_its_task_the_deciding_controls() -> None:
    draws = [-0.1] * DRAWS
    tested = ControlTestDraws(DRAWS, -0.1, [-0.1, -0.1], 0.5, draws)
    record = SetRecord(
        before=1.0,
        after=0.5,
        n=40,
        interval=[-0.6, -0.4],
        change=-0.5,
        flips=FlipsRecord(20, 0, 1e-6),
        detectable=0.2,
        controls={
            "uniform alive": tested,
            "mean difference": tested,
            "random directions": replace(tested, values=[0.0]),
        },
        control=ControlDraws(DRAWS, -0.1, [-0.1, -0.1], draws),
        beyond_controls=ControlRecord(DRAWS, -0.4, [-0.4, -0.4]),
        p=0.01,
        verdict="supported",
    )
    found = task_change(record, 0.95)
    assert found.flips == Flips(40, 20, 0)
    assert list(found.controls) == ["activity-matched", "uniform alive"]  # the others decide nothing, or are too few
