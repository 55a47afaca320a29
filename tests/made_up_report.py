"""A made-up study, plausible in shape, for tests of how results are shown."""

import random

from featdiff.analyses.dynamics.result import DynamicsPanel
from featdiff.report.data import (
    ControlDraws,
    EffectRow,
    ReportData,
    SetChange,
)

TASKS = {
    "caesar": "train",
    "reversal": "near",
    "counting": "far",
    "sorting": "far",
    "dice": "unseen",
    "letters": "unseen",
}
SEEN = ["reversal", "counting", "sorting"]
MODELS = ("base", "sft", "rl")


def study() -> ReportData:
    """Three models, six tasks, five checkpoints; the random features do half of what the selected ones do."""
    draw = random.Random(0)
    return ReportData(
        study="demo",
        models=MODELS,
        dynamics=[dynamics(draw, "sft", 4), dynamics(draw, "rl", 30)],
        effects=[
            effect(draw, task, TASKS[task], edit)
            for edit in ("zero", "set to 3.0")
            for task in [*SEEN, "dice", "letters"]
        ],
    )


def dynamics(draw: random.Random, paradigm: str, disorder: int) -> DynamicsPanel:
    shifts = [
        [round(draw.gauss(0, disorder)) if draw.random() > disorder / 50 else None for _ in range(50)] for _ in range(4)
    ]
    shared = 1 - disorder / 50
    return DynamicsPanel(
        paradigm=paradigm,
        top=50,
        checkpoints=[f"{paradigm}-{number}" for number in range(1, 6)],
        alignment="joint",
        overlap=[[round(shared ** abs(row - column), 2) for column in range(5)] for row in range(5)],
        chance=0.026,
        noise_floor=None,
        rank_shift=shifts,
    )


def effect(draw: random.Random, task: str, role: str, edit: str) -> EffectRow:
    falls = edit == "zero"
    sign, before = (-1, 1.0) if falls else (1, 0.0)
    size = draw.uniform(0.15, 0.5)
    values = [sign * abs(draw.gauss(size / 2, 0.06)) for _ in range(50)]
    beaten = sum(sign * value >= size for value in values)
    half = [sign * size - 0.09, sign * size + 0.09]
    return EffectRow(
        task=task,
        role=role,
        model="rl" if falls else "base",
        edit=edit,
        expected="decrease" if falls else "increase",
        features=5,
        sets={
            "critical": SetChange(before, before + sign * size, 160, [sign * size - 0.07, sign * size + 0.07]),
            "held_out": SetChange(before, before + sign * size, 80, half),
            "mirror": SetChange(1 - before, 1 - before - sign * 0.3, 16, [-0.5, 0.5]),
            "all": SetChange(0.6, 0.6 + sign * 0.02, 400, [sign * 0.02 - 0.02, sign * 0.02 + 0.02]),
        },
        control=ControlDraws(50, sum(values) / 50, [min(values), max(values)], values, "held_out"),
        p=(1 + beaten) / 51,
        verdict="supported" if beaten == 0 else "not distinguishable from random features",
    )
