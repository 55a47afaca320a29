"""`plan`: the estimate of a study as text for people, or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import fill

from featdiff.config.crosscoder import BatchTopK
from featdiff.config.study import Study
from featdiff.costs.costs import Model
from featdiff.costs.crosscoders import streams_on_disk
from featdiff.costs.estimate_inputs import Ground, ground_of
from featdiff.costs.hardware import gpu_is_here
from featdiff.costs.options import PlanOptions
from featdiff.costs.stages import SPREAD, StageEstimate, estimate

COLUMNS = 100
SETTLED = 500
"""Steps after which less than 1 % of the threshold of BatchTopK is that of the start: 0.99 ** 500."""
HEADER = ("stage", "devices", "FLOPs", "time", "memory per device", "disk after", "disk at most")
WIDTHS = (22, 7, 7, 8, 17, 10, 12)
NOT_COUNTED = (
    "Not counted: downloads; reading and tokenising text; loading models and writing files; rewards; figures; the "
    "revival of dead features; padding. The largest errors lie in the lengths and the numbers "
    "of items above, and in how much of a peak is reached."
)


def plan_text(study: Study, options: PlanOptions) -> str:
    """Cost of a study, stage by stage, and what the estimate stands on. ValueError where a shape is not known."""
    if options.gpus % study.training.feature_shards:
        raise ValueError(
            f"training.feature_shards is {study.training.feature_shards}, which does not divide --gpus {options.gpus}"
        )
    ground = ground_of(study, options)
    stages = estimate(ground)
    if options.as_json:
        return json.dumps(_record(ground, stages), indent=2)
    warnings = [_wrapped(f"! {text}.") for text in _warnings(ground)]
    return "\n".join([*_table(ground, stages), "", *warnings, *_fullest(ground, stages), "", *_words(ground)])


# ------------------------------------------------------------------ for people


def _table(ground: Ground, stages: Sequence[StageEstimate]) -> list[str]:
    hardware = ground.hardware
    rows = [row for stage in stages for row in _rows(ground, stage)]
    total = (
        "total",
        "",
        scaled(sum(stage.flops for stage in stages)),
        duration(sum(stage.seconds for stage in stages)),
        size(max(stage.peak for stage in stages)),
        size(sum(stage.stays for stage in stages)),
        size(_most_on_disk(stages)),
    )
    title = f"study {ground.plan.study.name} on {hardware.devices} x {hardware.kind}: an estimate, nothing was run"
    return [
        title,
        f"the study runs on {ground.plan.study.lineup.placed}",
        "",
        _line(HEADER),
        *map(_line, rows),
        _line(total),
    ]


def _warnings(ground: Ground) -> list[str]:
    """What the study would hardly mean as it stands: its device, and too few tokens for its dictionaries."""
    study, plan = ground.plan.study, ground.plan
    found: list[str] = []
    if study.lineup.device == "cpu" and not ground.hardware.kind.startswith("cpu"):
        found.append(
            f"these are the costs of {ground.hardware.kind}, but the study runs on the CPU; "
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


def _rows(ground: Ground, stage: StageEstimate) -> list[tuple[str, ...]]:
    """The stage, and its parts where it has several."""
    too_much = " !" if stage.peak > ground.hardware.memory else ""
    whole = (
        stage.name,
        str(stage.devices) if stage.flops else "-",
        scaled(stage.flops),
        duration(stage.seconds),
        size(stage.peak) + too_much,
        size(stage.stays),
        size(stage.at_most),
    )
    parts = stage.parts.items() if len(stage.parts) > 1 else ()
    return [whole, *((f"  {name}", "", scaled(part.flops), duration(part.seconds), "", "", "") for name, part in parts)]


def _line(cells: Sequence[str]) -> str:
    aligned = [f"{cells[0]:<{WIDTHS[0]}}"]
    aligned += [f"{cell:>{width}}" for cell, width in zip(cells[1:], WIDTHS[1:], strict=True)]
    return "  ".join(aligned).rstrip()


def _fullest(ground: Ground, stages: Sequence[StageEstimate]) -> list[str]:
    """What holds the memory of the fullest stage, and of every one that does not fit."""
    limit = ground.hardware.memory
    named = [stage for stage in stages if stage.peak > limit] or [max(stages, key=lambda stage: stage.peak)]
    return [_wrapped(f"{_verdict(stage, limit)}: {_parts(stage.memory)}.") for stage in named]


def _verdict(stage: StageEstimate, limit: float) -> str:
    if stage.peak > limit:
        return f"! {stage.name} does not fit: it needs {size(stage.peak)} of {size(limit)}"
    return f"{stage.name} is the fullest stage, with {size(stage.peak)} of {size(limit)}"


def _parts(memory: dict[str, float]) -> str:
    largest = sorted(memory.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {size(held)}" for name, held in largest if held)


def _words(ground: Ground) -> list[str]:
    """What the numbers stand on."""
    hardware, study = ground.hardware, ground.plan.study
    others = f"; {', '.join(SPREAD)} runs on all devices: {_shared(ground)}; every other stage on one"
    others = others if hardware.devices > 1 else ""
    parts = [f"Base {study.lineup.base}: {_shape(ground.model)}; tap after block {ground.layers}."]
    if ground.teacher:
        parts.append(f"Teacher: {_shape(ground.teacher)}.")
    parts += [
        f"Device {hardware.kind}: {hardware.words}{others}.",
        f"Assumed: {_assumed(ground)}.",
        NOT_COUNTED,
        "Other numbers: --shape layers=36,..., --hardware memory=80,..., --assume l0=60,...; see featdiff plan --help.",
    ]
    if study.activations.cache:
        parts.insert(
            -2, f"The cache of residual streams takes {size(streams_on_disk(ground))} of the disk after train."
        )
    return [_wrapped(part) for part in parts]


def _shared(ground: Ground) -> str:
    """How the devices share the work of the crosscoders."""
    if ground.shards == 1:
        return "they divide the tokens of a batch, and tell each other their gradients"
    groups = f"{ground.groups} groups divide the tokens, in each of which " if ground.groups > 1 else ""
    return f"{groups}{ground.shards} devices divide the features, and tell each other their reconstructions"


def _shape(model: Model) -> str:
    shape = model.shape
    return (
        f"{scaled(shape.parameters)} parameters; {shape.layers} blocks of width {shape.d_model}, {shape.heads} heads "
        f"of {shape.head_dim} ({shape.kv_heads} for keys and values), MLP of {shape.mlp}, {shape.vocabulary} tokens "
        f"({model.origin})"
    )


def _assumed(ground: Ground) -> str:
    assumed, plan = ground.assumed, ground.plan
    parts: list[str] = []
    if plan.study.posttrain:
        parts += [
            f"{assumed.prompts_of(plan)} prompts of {assumed.prompt_tokens} tokens",
            f"traces of {assumed.trace_tokens} and rollouts of {assumed.completion_tokens} tokens or their limit",
        ]
    if plan.study.evaluation.tasks:
        items = sum(ground.items(task) for task in plan.study.evaluation.tasks)
        parts += [
            f"{items} items of {assumed.choices} choices, {assumed.item_tokens} tokens with one of them",
            f"{assumed.critical:.0%} of the items critical",
        ]
    if any(one.sparsity.kind != "batchtopk" for one in plan.crosscoders.values()):
        parts.append(f"{assumed.l0:g} active features per token once learned, and sparse steps from there")
    return "; ".join(parts)


def _wrapped(text: str) -> str:
    return fill(text, COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def scaled(number: float) -> str:
    """A number with a prefix.

    >>> scaled(515_396_075_520.0)
    '515 G'
    """
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 0.9995 * 10**power:
            return f"{_digits(number / 10**power)} {prefix}"
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
    for unit, name in ((86_400 * 2, "days"), (5_400, "h"), (90, "min")):
        if seconds >= unit:
            return f"{seconds / {'days': 86_400, 'h': 3_600, 'min': 60}[name]:.2g} {name}"
    if seconds < 1:
        return "< 1 s" if seconds else "-"
    return f"{seconds:.0f} s"


def _digits(number: float) -> str:
    """Three significant digits."""
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"


# ------------------------------------------------------------------ for scripts


def _record(ground: Ground, stages: Sequence[StageEstimate]) -> dict[str, object]:
    return {
        "study": ground.plan.study.name,
        "hardware": asdict(ground.hardware),
        "device": ground.plan.study.lineup.device,
        "dtype": ground.plan.study.lineup.dtype,
        "warnings": _warnings(ground),
        "base": {"origin": ground.model.origin, "layers_below_the_tap": ground.layers, **asdict(ground.model.shape)},
        "assumed": asdict(ground.assumed),
        "stages": [
            {**asdict(stage), "flops": stage.flops, "seconds": stage.seconds, "peak": stage.peak} for stage in stages
        ],
        "total": {
            "flops": sum(stage.flops for stage in stages),
            "seconds": sum(stage.seconds for stage in stages),
            "peak": max(stage.peak for stage in stages),
            "stays": sum(stage.stays for stage in stages),
            "at_most": _most_on_disk(stages),
        },
    }


def _most_on_disk(stages: Sequence[StageEstimate]) -> float:
    """Bytes of the run's folder at its largest, as stage follows stage."""
    return max(sum(one.stays for one in stages[:n]) + stage.at_most for n, stage in enumerate(stages))
