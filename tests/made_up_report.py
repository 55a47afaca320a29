"""A made-up study, plausible in shape, for tests of how results are shown."""

import random

from featdiff.report.data import (
    ControlDraws,
    EffectRow,
    ReportData,
    SelectionPanel,
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
    """Three models, six tasks; the random features do half of what the selected ones do."""
    draw = random.Random(0)
    return ReportData(
        study="demo",
        models=MODELS,
        selection=SelectionPanel(
            model="rl",
            lineup="joint",
            score="swap",
            threshold=0.2,
            rule="intersection",
            tasks=SEEN,
            per_task={"reversal": 40, "counting": 33, "sorting": 61},
            critical={"reversal": 210, "counting": 160, "sorting": 57},
            mirror={"reversal": 4, "counting": 16, "sorting": 40},
            chosen=[3, 17, 40, 41, 99],
            overlap=[[1.0, 0.62, 0.41], [0.62, 1.0, 0.37], [0.41, 0.37, 1.0]],
            in_at_least=[90, 39, 5],
        ),
        effects=[
            effect(draw, task, TASKS[task], edit)
            for edit in ("zero", "set to 3.0")
            for task in [*SEEN, "dice", "letters"]
        ],
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
