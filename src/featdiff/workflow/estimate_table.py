"""`featdiff plan`: the estimate of a study as text for people, or as JSON for scripts."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import Annotated

import tyro

from featdiff.config.crosscoder import BatchTopK
from featdiff.config.study import Study
from featdiff.costs.assumptions import Assumptions, checked
from featdiff.costs.estimate import Cost, CostInputs, cost_inputs
from featdiff.costs.hardware import gpu_is_here
from featdiff.costs.training import cache_bytes
from featdiff.models.shapes import Shape
from featdiff.workflow.registry import stage_costs

COLUMNS = 100
LIBRARIES = 0.75e9
"""Bytes that a process holds before any tensor: its libraries, or the context of a GPU."""
ON_ALL_DEVICES = ("train",)
SETTLED = 500
"""Steps after which BatchTopK's threshold has settled."""
HEADER = ("stage", "devices", "FLOPs", "time", "memory per device", "disk after", "disk at most")
WIDTHS = (22, 7, 7, 8, 17, 10, 12)
NOT_COUNTED = (
    "Not counted: downloads; reading and tokenising the corpus; rewards; figures; the revival of dead features; "
    "padding. The largest errors lie in the lengths and the numbers of items above (--assume.items 500 changes one), "
    "and in how much of a peak is reached."
)


@dataclass(frozen=True)
class PlanOptions:
    """Devices, and what has to be assumed."""

    assume: Assumptions
    """What no setting says."""
    gpus: int = 1
    """Number of devices."""
    kind: str | None = None
    """Kind of the devices (H200, H100, A100, L40S, RTX4090, cpu); None: cpu for a study on the CPU, else H200."""
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False
    """The same for scripts, in FLOPs, seconds and bytes."""
    calibrate: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """First measure this machine, in less than a minute, for this estimate and later ones; works without a study."""


@dataclass(frozen=True)
class StageCost:
    """A stage with its cost, and the devices that it runs on."""

    name: str
    devices: int
    cost: Cost


def priced(inputs: CostInputs) -> list[StageCost]:
    """The stages in order. What a study is given (models, texts) is no part of its bytes on the disk."""
    found: list[StageCost] = []
    for stage, cost in stage_costs(inputs):
        memory = {**cost.memory, "libraries": LIBRARIES} if cost.memory else {}
        devices = inputs.devices if stage.name in ON_ALL_DEVICES else 1
        found.append(StageCost(stage.name, devices, Cost(cost.parts, memory, cost.stays, cost.passing)))
    return found


def calibrated() -> Path:
    """Measure this machine, its accelerator where it has one; the file of the measurements."""
    import torch

    from featdiff.costs.calibration import calibrate

    return calibrate("cuda" if torch.cuda.is_available() else "cpu")


def plan_text(study: Study, options: PlanOptions) -> str:
    """Cost of a study, stage by stage, and what the estimate stands on.

    ValueError where a shape is not known, and for devices and assumptions that cannot be.
    """
    inputs = cost_inputs(study, options.kind, options.gpus, checked(options.assume))
    stages = priced(inputs)
    if options.as_json:
        return json.dumps(_record(inputs, stages), indent=2)
    warnings = [_wrapped(f"! {text}.") for text in _warnings(inputs)]
    return "\n".join([*_table(inputs, stages), "", *warnings, *_fullest(inputs, stages), "", *_words(inputs)])


def _table(inputs: CostInputs, stages: Sequence[StageCost]) -> list[str]:
    hardware, totals = inputs.hardware, _totals(stages)
    rows = [row for stage in stages for row in _rows(inputs, stage)]
    total = (
        "total",
        "",
        scaled(totals["flops"]),
        duration(totals["seconds"]),
        size(totals["peak"]),
        size(totals["stays"]),
        size(totals["at_most"]),
    )
    title = f"study {inputs.plan.study.name} on {hardware.devices} x {hardware.kind}: an estimate, nothing was run"
    runs_on = f"the study runs on {inputs.plan.study.lineup.placed}"
    return [title, runs_on, "", _line(HEADER), *map(_line, rows), _line(total)]


def _warnings(inputs: CostInputs) -> list[str]:
    """What the study would hardly mean as it stands: its device, and too few tokens for its dictionaries."""
    study, plan = inputs.plan.study, inputs.plan
    found: list[str] = []
    if study.lineup.device == "cpu" and not inputs.hardware.kind.startswith("cpu"):
        found.append(
            f"these are the costs of {inputs.hardware.kind}, but the study runs on the CPU; "
            'set lineup.device = "cuda" and lineup.dtype = "bfloat16"'
        )
    elif study.lineup.device == "cpu" and gpu_is_here():
        found.append('this machine has a GPU, but the study runs on the CPU; set lineup.device = "cuda"')
    tokens = study.corpus.tokens * study.training.epochs
    steps = tokens // study.training.batch_size
    sparsities = [one.sparsity for one in plan.crosscoders.values() if isinstance(one.sparsity, BatchTopK)]
    if sparsities and steps < SETTLED:
        found.append(
            f"training takes {steps} steps, but the threshold of BatchTopK settles over about {SETTLED}, so L0 may be "
            "far from k; give more corpus.tokens or training.epochs, or a smaller training.batch_size"
        )
    after = max((one.dead_after_tokens for one in sparsities), default=0)
    if after >= tokens:
        found.append(
            f"dead_after_tokens of crosscoder.sparsity is {after:,}, but training reads {tokens:,} tokens, "
            "so no feature is ever dead and none is revived; set it well below, such as to a tenth"
        )
    return found


def _rows(inputs: CostInputs, stage: StageCost) -> list[tuple[str, ...]]:
    """The stage, and its parts where it has several."""
    cost = stage.cost
    whole = (
        stage.name,
        str(stage.devices) if cost.parts else "-",
        scaled(cost.total.flops),
        duration(cost.total.seconds),
        size(cost.peak) + (" !" if cost.peak > inputs.hardware.memory else ""),
        size(cost.stays),
        size(cost.stays + cost.passing),
    )
    parts = cost.parts.items() if len(cost.parts) > 1 else ()
    return [whole, *((f"  {name}", "", scaled(part.flops), duration(part.seconds), "", "", "") for name, part in parts)]


def _line(cells: Sequence[str]) -> str:
    aligned = [f"{cells[0]:<{WIDTHS[0]}}"]
    aligned += [f"{cell:>{width}}" for cell, width in zip(cells[1:], WIDTHS[1:], strict=True)]
    return "  ".join(aligned).rstrip()


def _fullest(inputs: CostInputs, stages: Sequence[StageCost]) -> list[str]:
    """What holds the memory of the fullest stage, and of every one that does not fit."""
    limit = inputs.hardware.memory
    too_large = [stage for stage in stages if stage.cost.peak > limit]
    lines: list[str] = []
    for stage in too_large or [max(stages, key=lambda stage: stage.cost.peak)]:
        needed = f"{size(stage.cost.peak)} of {size(limit)}"
        largest = sorted(stage.cost.memory.items(), key=lambda part: -part[1])
        parts = ", ".join(f"{name} {size(held)}" for name, held in largest if held)
        verdict = f"! {stage.name} does not fit: it needs" if too_large else f"{stage.name} is the fullest stage, with"
        lines.append(_wrapped(f"{verdict} {needed}: {parts}."))
    return lines


def _words(inputs: CostInputs) -> list[str]:
    """What the numbers stand on."""
    hardware, settings = inputs.hardware, inputs.plan.study.lineup
    parts = [f"Base {settings.base}: {_shape(inputs.shape)}; tap after block {inputs.layers}."]
    if inputs.teacher:
        parts.append(f"Teacher: {_shape(inputs.teacher)}.")
    parts.append(f"Device {hardware.kind}: {hardware.words}.")
    if hardware.devices > 1:
        parts.append(f"{', '.join(ON_ALL_DEVICES)} runs on all devices: {_shared(inputs)}; every other stage on one.")
    assumed = ", ".join(f"{name} {value:g}" for name, value in asdict(inputs.assumed).items())
    parts += [f"Assumed where no file says it: {assumed}.", NOT_COUNTED]
    if cached := cache_bytes(inputs):
        parts.append(f"The cache of residual streams takes {size(cached)} of the disk after train.")
    return [_wrapped(part) for part in parts]


def _shared(inputs: CostInputs) -> str:
    """How the devices share the work of the crosscoders."""
    if inputs.shards == 1:
        return "they divide the tokens of a batch, and tell each other their gradients"
    groups = f"{inputs.groups} groups divide the tokens, in each of which " if inputs.groups > 1 else ""
    return f"{groups}{inputs.shards} devices divide the features, and tell each other their reconstructions"


def _shape(shape: Shape) -> str:
    return f"{scaled(shape.parameters)} parameters; {shape.layers} blocks of width {shape.d_model}"


def _wrapped(text: str) -> str:
    return fill(text, COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def scaled(number: float) -> str:
    """A number with a prefix.

    >>> scaled(515_396_075_520.0)
    '515 G'
    """
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 0.9995 * 10**power:
            value = number / 10**power
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {prefix}"
    return f"{number:.0f}" if number else "-"


def size(held: float) -> str:
    """Bytes in words, with decimal prefixes.

    >>> size(80e9)
    '80.0 GB'
    """
    return f"{scaled(held)}{'B' if held >= 999.5 else ' B'}" if held else "-"


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(11_880)
    '3.3 h'
    """
    for least, unit, name in ((172_800, 86_400, "days"), (5_400, 3_600, "h"), (90, 60, "min")):
        if seconds >= least:
            return f"{seconds / unit:.2g} {name}"
    if seconds < 1:
        return "< 1 s" if seconds else "-"
    return f"{seconds:.0f} s"


def _record(inputs: CostInputs, stages: Sequence[StageCost]) -> dict[str, object]:
    return {
        "study": inputs.plan.study.name,
        "device": inputs.plan.study.lineup.device,
        "dtype": inputs.plan.study.lineup.dtype,
        "warnings": _warnings(inputs),
        "hardware": asdict(inputs.hardware),
        "base": {"layers_below_the_tap": inputs.layers, "parameters": inputs.shape.parameters, **asdict(inputs.shape)},
        "assumed": asdict(inputs.assumed),
        "stages": [
            {
                "name": stage.name,
                "devices": stage.devices,
                "parts": {name: asdict(part) for name, part in stage.cost.parts.items()},
                "memory": dict(stage.cost.memory),
                **_totals([stage]),
            }
            for stage in stages
        ],
        "total": _totals(stages),
    }


def _totals(stages: Sequence[StageCost]) -> dict[str, float]:
    """FLOPs and seconds of all; memory of the fullest; bytes on the disk at the end, and when it is at its fullest."""
    costs = [stage.cost for stage in stages]
    return {
        "flops": sum(cost.total.flops for cost in costs),
        "seconds": sum(cost.total.seconds for cost in costs),
        "peak": max(cost.peak for cost in costs),
        "stays": sum(cost.stays for cost in costs),
        "at_most": max(sum(one.stays for one in costs[: n + 1]) + cost.passing for n, cost in enumerate(costs)),
    }
