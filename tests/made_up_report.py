"""A made-up study, plausible in shape, for tests of how results are shown."""

import random

from featdiff.report.data import (
    AccuracyCell,
    ControlDraws,
    CorpusCard,
    EffectRow,
    ModelCard,
    QualityRow,
    ReportData,
    SelectionPanel,
    SetChange,
    SpecificityPanel,
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
        models=[
            ModelCard("base", "demo/base", "given with the package", {"parameters": "1.0 M"}),
            ModelCard(
                "sft", "runs/demo/posttrain/sft", "SFT on teacher traces", {"learning rate": "1e-4", "steps": "200"}
            ),
            ModelCard(
                "rl", "runs/demo/posttrain/grpo", "GRPO with an outcome reward", {"rollouts": "8", "steps": "200"}
            ),
        ],
        layer=2,
        blocks=4,
        d_model=128,
        corpus=CorpusCard({"reasoning traces": 0.5, "pydoc topics": 0.5}, 210_000, 1_900, 12, 208_088, 20_000),
        accuracy={task: accuracy(draw, role) for task, role in TASKS.items()},
        quality=[
            quality(draw, lineup, on) for lineup in ("joint", "sft", "rl") for on in ("held-out corpus", "prompts")
        ],
        specificity=[
            *(specificity(draw, lineup, lineup, "NRN", width) for lineup, width in (("sft", 0.16), ("rl", 0.06))),
            *(
                specificity(draw, "joint", model, "MAS", width)
                for model, width in zip(MODELS, (0.1, 0.2, 0.07), strict=True)
            ),
        ],
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
        provenance={"commit": "0123abc", "torch": "2.13.0", "seed": "0", "command": "featdiff run studies/demo.toml"},
        shrinkage=1.0,
    )


def accuracy(draw: random.Random, role: str) -> dict[str, AccuracyCell]:
    values = {"base": draw.uniform(0.05, 0.3), "sft": draw.uniform(0.1, 0.9), "rl": draw.uniform(0.3, 0.95)}
    return {
        model: AccuracyCell(value, 400, [max(0.0, value - 0.045), min(1.0, value + 0.045)], 0.25, role)
        for model, value in values.items()
    }


def quality(draw: random.Random, lineup: str, on: str) -> QualityRow:
    models = MODELS if lineup == "joint" else ("base", lineup)
    shares = [{model: draw.uniform(0.93, 0.995) for model in models} for _ in range(3)]
    return QualityRow(lineup, on, 20_000, 2048, "ReLU, weight 2", *shares, l0=57.3, dead_share=0.07)


def specificity(draw: random.Random, lineup: str, model: str, score: str, width: float) -> SpecificityPanel:
    centre = 0.5 if score == "NRN" else 0.333
    values = [min(0.999, max(0.0, draw.gauss(centre, width))) for _ in range(1900)]
    return SpecificityPanel(
        lineup=lineup,
        model=model,
        score=score,
        aligned=MODELS if lineup == "joint" else ("base", lineup),
        features=2048,
        alive=len(values),
        edges=[bin / 50 for bin in range(51)],
        counts=[sum(bin / 50 <= value < (bin + 1) / 50 for value in values) for bin in range(50)],
        tails={f"{cut}": sum(value > cut for value in values) for cut in (0.8, 0.9)},
        tails_l2={f"{cut}": sum(value > cut + 0.02 for value in values) for cut in (0.8, 0.9)},
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
