"""`featdiff plan`: the estimate of a study as text for people, or as JSON for scripts."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Annotated

import tyro

from featdiff.config.crosscoder import BatchTopK
from featdiff.config.study import Study
from featdiff.costs.assumptions import Assumptions, checked
from featdiff.costs.estimate import Cost, CostInputs, cost_inputs
from featdiff.costs.hardware import gpu_is_here
from featdiff.models.shapes import Shape
from featdiff.presentation.words import plural
from featdiff.workflow.registry import stage_costs

LIBRARIES = 0.75e9  # bytes that a process holds before any tensor: its libraries, or the context of a GPU
ON_ALL_DEVICES = "train"
SETTLED = 500  # steps after which BatchTopK's threshold has settled
HEADER = ("stage", "devices", "FLOPs", "time", "memory per device", "disk after", "disk at most")
WIDTHS = ("<12", ">7", ">7", ">8", ">17", ">12", ">12")
NOT_COUNTED = (
    "Good to a factor of 2, if what is assumed is right. Not counted: downloads; reading and tokenising the corpus; "
    "rewards; figures; padding. --assume.items 500 changes one of the numbers above."
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


def priced(inputs: CostInputs) -> dict[str, Cost]:
    """The stages in order. What a study is given (models, texts) is no part of its bytes on the disk."""
    libraries = {"libraries": LIBRARIES}
    return {
        stage.name: replace(cost, memory={**cost.memory, **libraries}) if cost.memory else cost
        for stage, cost in stage_costs(inputs)
    }


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
    costs = priced(inputs)
    stages = [
        {"name": name, "devices": inputs.devices if name == ON_ALL_DEVICES else 1, "memory": dict(cost.memory)}
        | _totals([cost])
        for name, cost in costs.items()
    ]
    if options.as_json:
        base = {"layers_below_the_tap": inputs.layers, "parameters": inputs.shape.parameters, **asdict(inputs.shape)}
        record = {
            "study": study.name,
            "device": study.lineup.device,
            "dtype": study.lineup.dtype,
            "warnings": _warnings(inputs),
            "hardware": asdict(inputs.hardware),
            "base": base,
            "assumed": asdict(inputs.assumed),
            "stages": stages,
            "total": _totals(costs.values()),
        }
        return json.dumps(record, indent=2)
    said = [*(f"! {text}." for text in _warnings(inputs)), *_fullest(inputs, costs), "", *_words(inputs)]
    wrapped = [fill(text, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) for text in said]
    return "\n".join([*_table(inputs, costs), "", *wrapped])


def _table(inputs: CostInputs, costs: dict[str, Cost]) -> list[str]:
    hardware, rows = inputs.hardware, list[tuple[str, ...]]([HEADER])
    for name, some in [*((name, [cost]) for name, cost in costs.items()), ("total", costs.values())]:
        of, devices = _totals(some), inputs.devices if name == ON_ALL_DEVICES else 1
        rows.append(
            (
                name,
                "" if name == "total" else str(devices) if of["seconds"] else "-",
                scaled(of["flops"]),
                duration(of["seconds"]),
                size(of["peak"]) + (" !" if of["peak"] > hardware.memory else ""),
                size(of["stays"]),
                size(of["at_most"]),
            )
        )
    lines = ["  ".join(map(format, row, WIDTHS)) for row in rows]
    title = f"study {inputs.plan.study.name} on {hardware.devices} x {hardware.kind}: an estimate, nothing was run"
    return [title, f"the study runs on {inputs.plan.study.lineup.placed}", "", *(line.rstrip() for line in lines)]


def _warnings(inputs: CostInputs) -> list[str]:
    """What the study would hardly mean as it stands: its device, and too few tokens for its dictionaries."""
    study, found = inputs.plan.study, list[str]()
    if study.lineup.device == "cpu" and inputs.hardware.on_gpu:
        found.append(
            f"these are the costs of {inputs.hardware.kind}, but the study runs on the CPU; "
            'set lineup.device = "cuda" and lineup.dtype = "bfloat16"'
        )
    elif study.lineup.device == "cpu" and gpu_is_here():
        found.append('this machine has a GPU, but the study runs on the CPU; set lineup.device = "cuda"')
    tokens = study.corpus.tokens * study.training.epochs
    steps = tokens // study.training.batch_size
    sparsities = [one.sparsity for one in inputs.plan.crosscoders.values() if isinstance(one.sparsity, BatchTopK)]
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


def _fullest(inputs: CostInputs, costs: dict[str, Cost]) -> list[str]:
    """What holds the memory of the fullest stage, and of every one that does not fit."""
    limit, lines = inputs.hardware.memory, list[str]()
    too_large = [name for name, cost in costs.items() if cost.peak > limit]
    for name in too_large or [max(costs, key=lambda name: costs[name].peak)]:
        largest = sorted(costs[name].memory.items(), key=lambda part: -part[1])
        parts = ", ".join(f"{held} {size(number)}" for held, number in largest if number)
        verdict = f"! {name} does not fit: it needs" if too_large else f"{name} is the fullest stage, with"
        lines.append(f"{verdict} {size(costs[name].peak)} of {size(limit)}: {parts}.")
    return lines


def _words(inputs: CostInputs) -> list[str]:
    """What the numbers stand on."""
    hardware, base = inputs.hardware, inputs.plan.study.lineup.base
    parts = [f"Base {base}: {_shape(inputs.shape)}; tap after block {inputs.layers}."]
    if inputs.teacher:
        parts.append(f"Teacher: {_shape(inputs.teacher)}.")
    parts.append(f"Device {hardware.kind}: {hardware.words}.")
    if hardware.devices > 1:
        shards, shared = inputs.plan.study.training.feature_shards, "they divide the tokens of a batch"
        if shards > 1:
            shared = (
                f"in {plural(inputs.groups, 'group')} that divide the tokens, {shards} devices each divide the features"
            )
        parts.append(f"{ON_ALL_DEVICES} runs on all devices: {shared}; every other stage on one.")
    assumed = ", ".join(f"{name} {value:g}" for name, value in asdict(inputs.assumed).items())
    return [*parts, f"Assumed where no file says it: {assumed}.", NOT_COUNTED]


def _shape(shape: Shape) -> str:
    return f"{scaled(shape.parameters)} parameters; {shape.layers} blocks of width {shape.d_model}"


def _totals(costs: Collection[Cost]) -> dict[str, float]:
    """FLOPs and seconds of all; memory of the fullest; bytes on the disk at the end, and when it is at its fullest."""
    stays, at_most = 0.0, 0.0
    for cost in costs:
        stays += cost.stays
        at_most = max(at_most, stays + cost.passing)
    return {
        "flops": sum(cost.work.flops for cost in costs),
        "seconds": sum(cost.work.seconds for cost in costs),
        "peak": max(cost.peak for cost in costs),
        "stays": stays,
        "at_most": at_most,
    }


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
