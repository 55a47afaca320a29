"""A made-up study, plausible in shape, for tests of how results are shown."""

import random

from featdiff.analyses.dynamics.result import DynamicsPanel
from featdiff.report.data import (
    ReportData,
    SelectionPanel,
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
    """Three models, six tasks, five checkpoints."""
    draw = random.Random(0)
    return ReportData(
        study="demo",
        models=MODELS,
        dynamics=[dynamics(draw, "sft", 4), dynamics(draw, "rl", 30)],
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
