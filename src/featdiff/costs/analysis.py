"""What evaluation and analysis cost: models on items, features on prompts, edits on answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from featdiff.config.intervention import NAMED, REDRAWN, ControlName
from featdiff.config.study import TaskSettings
from featdiff.costs.costs import FLOAT, CrosscoderSize, coding, forward, sampling
from featdiff.costs.estimate_inputs import Cost, Ground
from featdiff.costs.hardware import Work

SEARCHED = 13
"""Divergences that are measured to find the interpolation of equal KL."""
LONG = 8
RECORD_BYTES = 150
"""Of one evaluated item."""
UNLIMITED = 32_768
"""Tokens of a generated answer where the study sets no limit: that of lm-eval's AIME."""


def evaluate(ground: Ground) -> Cost:
    """Every model on every choice of every item; where answers are generated, on every repetition."""
    plan, model = ground.plan, ground.model
    tokens = plan.study.evaluation.batch_size * ground.assumed.item_tokens
    return Cost(
        parts={"models": _answers(ground, len(plan.models), None)},
        memory={
            "model": ground.whole,
            "forward pass": model.forward_bytes(tokens),
            "logits": tokens * model.shape.vocabulary * (model.value + 2 * FLOAT),
        },
        stays=RECORD_BYTES * len(plan.models) * sum(ground.items(task) for task in plan.study.evaluation.tasks),
    )


def attribute(ground: Ground) -> Cost:
    """MAS by two norms, cosines, density, and who is alive; nu on held-out tokens, which all models read once."""
    study, names = ground.plan.study, ground.harvested
    sizes = [ground.size(one) for one in ground.plan.crosscoders.values()]
    tokens = min(study.attribution.scaling.tokens, study.corpus.held_out_tokens)
    in_pass, models = min(tokens, study.activations.batch_size * study.corpus.context), ground.distinct(names)
    context, calls = study.corpus.context, models * tokens / in_pass
    return Cost(
        parts={
            "models": (
                forward(ground.model, models * tokens, context, calls, layers=ground.layers, head=False),
                *(coding(size, tokens) for size in sizes),
            )
        },
        memory={
            "models up to the tap": ground.below(names),
            "crosscoders": sum(size.file_bytes + _summed(size) for size in sizes),
            "forward pass": ground.model.forward_bytes(in_pass),
            "residual streams": FLOAT * in_pass * len(names) * ground.model.shape.d_model,
            "features of held-out tokens": max(size.coding_bytes(in_pass) for size in sizes),
        },
        stays=sum(_scores(size) for size in sizes),
    )


def stability(ground: Ground) -> Cost:
    """The first seed of every lineup, matched with each other one."""
    found = [(ground.size(ground.plan.crosscoders[name]), len(seeds)) for name, seeds in ground.plan.seeds.items()]
    several = [(size, seeds) for size, seeds in found if seeds > 1]
    return Cost(
        parts={"matching": tuple(_matching(size, seeds - 1) for size, seeds in several)},
        memory={"crosscoders": max((seeds * size.file_bytes for size, seeds in several), default=0)},
        stays=sum(
            size.features * (FLOAT * seeds * size.models + (FLOAT + LONG) * (seeds - 1) + LONG)
            for size, seeds in several
        ),
    )


@dataclass(frozen=True)
class _Followed:
    """Checkpoints under one alignment: the size of its crosscoders, how many, and how often two are matched."""

    size: CrosscoderSize
    crosscoders: int

    @property
    def matched(self) -> int:
        return self.crosscoders * (self.crosscoders - 1) // 2


def dynamics(ground: Ground) -> Cost:
    """Features matched across checkpoints and seeds; checkpoints read in the tuned model's place; specificity of every
    feature at every checkpoint, twice for the alignment that comes first."""
    by_model = {tuned: _followed(ground, tuned) for tuned in ground.plan.follows}
    followed = [one for found in by_model.values() for one in found]
    return Cost(
        parts={
            "matching": tuple(_matching(one.size, one.matched) for one in followed),
            "swapping": tuple(work for tuned in by_model for work in _swapping(ground, tuned)),
        },
        memory={"crosscoders": max((one.crosscoders * one.size.file_bytes for one in followed), default=0)},
        stays=sum(
            FLOAT * len(ground.plan.checkpoints[tuned]) * sum(one.size.features for one in (found[0], *found))
            for tuned, found in by_model.items()
        ),
    )


def _followed(ground: Ground, tuned: str) -> list[_Followed]:
    plan, found = ground.plan, list[_Followed]()
    for alignment in plan.study.dynamics.alignments:
        match alignment:
            case "joint" | "swap":
                name = plan.dynamics(tuned) if alignment == "joint" else plan.swap(tuned)
                names = plan.seeds[name] if name else ()
            case "matched" | "same_seed_index":
                names = tuple(seed for name in plan.per_checkpoint(tuned) for seed in plan.seeds[name])
        if names:
            found.append(_Followed(ground.size(plan.crosscoders[names[0]]), len(names)))
    return found


def _matching(size: CrosscoderSize, times: int) -> Work:
    """Cosines of all features of two dictionaries, once; the assignment is not counted."""
    return Work(flops=2.0 * times * size.features**2 * size.width, of="crosscoder")


def _swapping(ground: Ground, tuned: str) -> tuple[Work, ...]:
    """Base, tuned model and checkpoints on held-out tokens, and the codes with each checkpoint in its place."""
    study, name = ground.plan.study, ground.plan.swap(tuned)
    if name is None or "swap" not in study.dynamics.alignments:
        return ()
    checkpoints, seeds = len(ground.plan.checkpoints[tuned]), len(ground.plan.seeds[name])
    tokens, context = min(study.dynamics.tokens, study.corpus.held_out_tokens), study.corpus.context
    calls = tokens / (study.activations.batch_size * context)
    return (
        forward(
            ground.model,
            (2 + checkpoints) * tokens,
            context,
            (2 + checkpoints) * calls,
            layers=ground.layers,
            head=False,
        ),
        coding(ground.size(ground.plan.crosscoders[name]), tokens * (1 + checkpoints) * seeds),
    )


def select(ground: Ground) -> Cost:
    """Features at the last token of the prompts, and the scores of all items."""
    plan, length, joint = ground.plan, ground.assumed.item_tokens, ground.plan.crosscoders[ground.plan.joint]
    tasks = [task for task in plan.study.evaluation.tasks if task.role != "unseen"]
    prompts = sum(ground.items(task) for task in tasks)
    largest = max((ground.items(task) for task in tasks), default=0)
    redrawn = len(REDRAWN) * plan.study.selection.redraws * min(joint.features, NAMED)
    batch, models = plan.study.intervention.batch_size, ground.distinct(joint.models)
    tokens, calls = models * prompts * length, models * prompts / batch
    return Cost(
        parts={
            "models": (
                forward(ground.model, tokens, length, calls, layers=ground.layers, head=False),
                coding(ground.size(joint), 3 * prompts),
            )
        },
        memory={
            "models up to the tap": ground.below(joint.models),
            "crosscoder": ground.size(joint).file_bytes,
            "forward pass": ground.model.forward_bytes(batch * length),
            "features": 4 * FLOAT * largest * joint.features,
        },
        stays=2 * FLOAT * len(tasks) * joint.features + LONG * redrawn,
    )


def intervene(ground: Ground) -> Cost:
    """Every edit on every task of choices: below the tap three times, above it once per control and dose. Under every
    edit and control of generated answers a whole model writes, while the others read up to the tap."""
    plan, model, length = ground.plan, ground.model, ground.assumed.item_tokens
    settings, joint, choices = plan.study.intervention, plan.crosscoders[plan.joint], ground.assumed.choices
    tests, controls = 2 + len(settings.also), sum(settings.drawn(kind) for kind in get_args(ControlName))
    tasks = [task for task in plan.study.evaluation.tasks if not task.generates]
    written = [task for task in plan.study.evaluation.tasks if task.generates and settings.generated_controls]
    items = tests * sum(_edited(ground, task) for task in tasks)
    swept = 2 * sum(min(ground.items(task), settings.items or ground.items(task)) for task in tasks)
    swept *= len(settings.doses) * (1 + settings.dose_controls)
    rows, sequences = items * choices, items * (choices + 1 + controls) + swept
    models, in_pass = ground.distinct(joint.models), settings.batch_size * length
    passes, above = 3 * models * rows, model.shape.layers - ground.layers
    streams = 2 * FLOAT * in_pass * len(joint.models) * model.shape.d_model
    return Cost(
        parts={
            "below the tap": (
                forward(model, passes * length, length, passes / settings.batch_size, layers=ground.layers, head=False),
                coding(ground.size(joint), rows * length),
            ),
            "edits, controls": (
                forward(model, sequences * length, length, sequences / settings.batch_size, layers=above, head=False),
            ),
            **({"generated answers": tuple(_edited_generation(ground, written, tests))} if written else {}),
        },
        memory={
            "models up to the tap": ground.below(joint.models),
            "a whole model": ground.whole,
            "crosscoder": ground.size(joint).file_bytes,
            "forward pass": model.forward_bytes(in_pass) + streams,
            "logits": in_pass * model.shape.vocabulary * (model.value + FLOAT),
        },
    )


def ways(ground: Ground) -> Cost:
    """Choosing on one half, then every way with its controls on the other and on unseen tasks.

    Features are edited above the tap; the others in whole models, where an item's choices share their context.
    """
    plan, model, length = ground.plan, ground.model, ground.assumed.item_tokens
    settings, text = plan.study.ways, plan.study.intervention.neutral_tokens
    joint, batch = plan.crosscoders[plan.joint], plan.study.intervention.batch_size
    halves, tested = 0.0, 0.0
    for task in plan.study.evaluation.tasks:
        there, seen = ground.items(task), task.role != "unseen"
        halves += min(settings.items, there / 2) if seen else 0
        tested += min(settings.items, there / 2) if seen else min(2 * settings.items, there)
    once = (1 + settings.tried_controls) * halves
    swept = len(settings.strengths) * once + (1 + settings.controls) * tested
    above = (swept + (1 + settings.controls) * tested) * length
    counted = len(settings.neuron_shares) * once + (1 + settings.controls) * tested
    whole = (swept + counted + 2 * ground.assumed.choices * (halves + tested)) * length
    examined = 4 * (1 + settings.examined) + len(plan.tuned)
    looked_at = examined * (2 * text + ground.assumed.critical * halves * length)
    models = ground.distinct(joint.models)
    read = models * ground.assumed.choices * (4 * halves + 2 * tested) * length
    return Cost(
        parts={
            "below the tap": (
                forward(model, read, length, read / (batch * length), layers=ground.layers, head=False),
                coding(ground.size(joint), read / models),
            ),
            "features": (
                forward(
                    model,
                    above,
                    length,
                    above / (batch * length),
                    layers=model.shape.layers - ground.layers,
                    head=False,
                ),
            ),
            "steering, neurons": (forward(model, whole, length, whole / (batch * length), head=False),),
            "side effects, neurons moved": (forward(model, looked_at, length, looked_at / (batch * length)),),
        },
        memory={
            "models up to the tap": ground.below(joint.models),
            "whole models": 2 * ground.whole,
            "crosscoder": ground.size(joint).file_bytes,
            "forward pass": model.forward_bytes(batch * length),
            "logits": batch * length * model.shape.vocabulary * (model.value + FLOAT),
        },
    )


def examples(ground: Ground) -> Cost:
    """Held-out text for each crosscoder that is shown, coded jointly and without each model; then whole models."""
    study, names = ground.plan.study, ground.plan.models_of(ground.plan.shown)
    sizes = [ground.size(ground.plan.crosscoders[name]) for name in ground.plan.shown]
    tokens = min(study.examples.tokens, study.corpus.held_out_tokens)
    context, in_pass = study.corpus.context, min(tokens, study.activations.batch_size * study.corpus.context)
    models = ground.distinct(names)
    seen = len(sizes) * models * tokens
    read = forward(ground.model, seen, context, seen / in_pass, layers=ground.layers, head=False)
    return Cost(
        parts={"models": (read, *(coding(size, (size.models + 2) / 2 * tokens) for size in sizes))},
        memory={
            "models up to the tap": ground.below(names),
            "a whole model": ground.whole,
            "crosscoders": sum(size.file_bytes for size in sizes),
            "forward pass": ground.model.forward_bytes(in_pass),
            "features of held-out tokens": max(size.coding_bytes(in_pass) for size in sizes),
        },
    )


def drift(ground: Ground) -> Cost:
    """Every model on answers, and beside the base on neutral text; three models and a crosscoder on held-out text for
    each; and the tasks, of those models at equal drift that have not been evaluated.

    What is on the disk are the interpolations. One of equal KL is sought for all models that moved but one.
    """
    plan, model, study = ground.plan, ground.model, ground.plan.study
    steps, length, layers = len(study.drift.alphas) + 1, ground.assumed.item_tokens, ground.layers
    between = {name: len(set(plan.trail(name).values())) + steps for name in plan.drifting}
    models, others = sum(between.values()), len(plan.drifting) - 1
    items = sum(min(study.drift.items, ground.items(task)) for task in study.evaluation.tasks)
    searched = models + SEARCHED * (others + 1)
    compared = (1 + searched) * items * length + 4 * models * study.drift.neutral_tokens
    tokens = min(study.drift.tokens, study.corpus.held_out_tokens)
    pairs = {tuned: ground.size(plan.crosscoders[pair]) for tuned in plan.tuned if (pair := plan.pair(tuned))}
    controls = sum(count for name, count in between.items() if name not in plan.tuned)
    readings = {tuned: between[tuned] + controls + (2 * others if controls else 0) for tuned in pairs}
    coded = tuple(coding(size, 2 * readings[tuned] * tokens) for tuned, size in pairs.items())
    batch, in_pass = study.drift.batch_size * study.corpus.context, study.activations.batch_size * study.corpus.context
    context, read = study.corpus.context, 3 * sum(readings.values()) * tokens
    evaluated = 2 * others + len(plan.drifting) - len(plan.tuned)
    return Cost(
        parts={
            "predictions": (forward(model, compared, length, compared / batch),),
            "features": (forward(model, read, context, read / in_pass, layers=layers, head=False), *coded),
            "accuracy": _answers(ground, evaluated, study.drift.accuracy_items),
        },
        memory={
            "whole models": 3 * ground.whole,
            "forward pass": model.forward_bytes(batch),
            "logits": batch * model.shape.vocabulary * 4 * FLOAT,
        },
        stays=len(plan.drifting) * steps * ground.whole,
    )


def _answers(ground: Ground, models: int, limit: int | None) -> tuple[Work, ...]:
    """So many models on the tasks, on at most `limit` items of each."""
    plan, model, length = ground.plan, ground.model, ground.assumed.item_tokens
    items = {task: min(ground.items(task), limit or ground.items(task)) for task in plan.study.evaluation.tasks}
    written = [task for task in items if task.generates]
    rows = ground.assumed.choices * models * sum(count for task, count in items.items() if not task.generates)
    batch = plan.study.evaluation.batch_size
    answers = (_generation(ground, task, models * items[task]) for task in written if models * items[task])
    return forward(model, rows * length, length, rows / batch), *answers


def _scores(size: CrosscoderSize) -> int:
    """Bytes of MAS, cosines, density, alive; and of nu (two targets, its controls), beta, and counts."""
    nu = FLOAT * (6 * size.models**2 + 2 * size.models) + 8
    return size.features * (FLOAT * (2 * size.models + size.models**2 + 1) + 1 + nu)


def _summed(size: CrosscoderSize) -> int:
    """Bytes of the sums of latent scaling, and of its control directions."""
    return size.features * (8 * (6 * size.models**2 + 4 * size.models) + FLOAT * size.d_model)


def _generation(ground: Ground, task: TaskSettings, items: int) -> Work:
    """All answers to so many items of a task."""
    length, count = ground.assumed.item_tokens, items * (task.repeats or 1)
    batch = min(ground.plan.study.evaluation.batch_size, count)
    return sampling(
        ground.model, count, batch, length, _longest(ground, task), weight=ground.model.value, recorded=False
    )


def _edited_generation(ground: Ground, tasks: list[TaskSettings], tests: int) -> Iterator[Work]:
    """Every variant of every test: the edited model writes, the others follow it up to the tap, a token at a time."""
    plan, model = ground.plan, ground.model
    others = ground.distinct(plan.crosscoders[plan.joint].models) - 1
    times = tests * (1 + plan.study.intervention.generated_controls)
    for task in tasks:
        yield _generation(ground, task, times * ground.items(task))
        count, longest = times * ground.items(task) * (task.repeats or 1), _longest(ground, task)
        read = ground.assumed.item_tokens + longest
        calls = others * longest * count / min(plan.study.evaluation.batch_size, count)
        yield forward(model, others * count * read, read, calls, layers=ground.layers, head=False)


def _longest(ground: Ground, task: TaskSettings) -> int:
    return min(task.max_new_tokens or UNLIMITED, ground.assumed.completion_tokens)


def _edited(ground: Ground, task: TaskSettings) -> float:
    """Items on which a model is edited; those held out are edited twice, with two choices of features."""
    study, items = ground.plan.study, ground.items(task)
    again = 0.0 if task.role == "unseen" else ground.assumed.critical * study.selection.held_out
    return min(items, study.intervention.items or items) * (1 + again)
