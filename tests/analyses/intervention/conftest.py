"""Made-up effects, plausible in shape: the random features do half of what the selected ones do."""

import random

import pytest

from featdiff.analyses.intervention.result import ChoiceAnswers, Predictions, TaskEffect
from featdiff.config.intervention import ControlName
from featdiff.intervention.effect_records import (
    BeforeAfter,
    ControlDraws,
    ControlRecord,
    ControlTest,
    FlipsRecord,
    SetRecord,
)
from featdiff.stats import Direction, Verdict

ROLES = {"reversal": "near", "counting": "far", "sorting": "far", "dice": "unseen", "letters": "unseen"}


def item_set(before: float, change: float, n: int, width: float, values: list[float], verdict: Verdict) -> SetRecord:
    control = ControlDraws(len(values), sum(values) / len(values), [min(values), max(values)], values)
    flips = FlipsRecord(max(0, round(-change * n)), max(0, round(change * n)), 0.01)
    interval = [change - width, change + width]
    p = (1 + sum(abs(value) >= abs(change) for value in values)) / (1 + len(values))
    return SetRecord(before, before + change, n, interval, change, flips, 0.18, {}, control, control, p, verdict)


def effect(draw: random.Random, task: str, edit: str) -> TaskEffect:
    expected: Direction = "decrease" if edit == "zero" else "increase"
    sign, before = (-1, 1.0) if edit == "zero" else (1, 0.0)
    size = draw.uniform(0.25, 0.5)
    values = [sign * abs(draw.gauss(size / 2, 0.06)) for _ in range(50)]
    verdict: Verdict = "supported" if all(abs(value) < size for value in values) else "underpowered"
    sets = {
        "critical": item_set(before, sign * size, 160, 0.07, values, verdict),
        "held_out": item_set(before, sign * size, 80, 0.09, values, verdict),
        "mirror": item_set(1 - before, -sign * 0.3, 16, 0.2, values, verdict),
        "all": item_set(0.6, sign * 0.02, 400, 0.02, values, verdict),
    }
    held_out = sets["held_out"]
    control = ControlRecord(50, held_out.control.mean, held_out.control.interval)
    controls: dict[ControlName, ControlTest] = {
        "activity-matched": ControlTest(50, held_out.control.mean, held_out.control.interval, held_out.p)
    }
    answers = ChoiceAnswers(Predictions((9, 31), (20, 20)), BeforeAfter(0.75, 0.5), 0.0)
    model, p = "rl" if edit == "zero" else "base", held_out.p
    return TaskEffect(
        task, model, edit, 5, sets, control, p, verdict, controls, expected, ROLES[task], answers, min(1.0, 5 * p)
    )


@pytest.fixture(scope="session")
def effects() -> list[TaskEffect]:
    """Two edits on five tasks, of which two are unseen."""
    draw = random.Random(0)
    return [effect(draw, task, edit) for edit in ("zero", "set to 3.0") for task in ROLES]
