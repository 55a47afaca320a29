"""What evaluation and analysis cost: models on items, features on prompts, edits on answers."""

from featdiff.pipeline.estimate.costs import FLOAT, CrosscoderSize, coding, forward
from featdiff.pipeline.estimate.ground import Cost, Ground
from featdiff.study import TaskSettings

RECORD_BYTES = 150
"""Of one evaluated item."""


def evaluate(ground: Ground) -> Cost:
    """Every model on every choice of every item."""
    plan, model, length = ground.plan, ground.model, ground.assumed.item_tokens
    batch = plan.study.evaluation.batch_size
    items = len(plan.models) * sum(ground.items(task) for task in plan.study.evaluation.tasks)
    rows = items * ground.assumed.choices
    return Cost(
        parts={"models": (forward(model, rows * length, length, rows / batch),)},
        memory={
            "model": ground.whole,
            "forward pass": model.forward_bytes(batch * length),
            "logits": batch * length * model.shape.vocabulary * (model.value + 2 * FLOAT),
        },
        stays=RECORD_BYTES * items,
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


def dynamics(ground: Ground) -> Cost:
    """Specificity of every feature at every checkpoint."""
    plan = ground.plan
    followed = [(plan.dynamics(tuned), plan.checkpoints[tuned]) for tuned in plan.tuned]
    return Cost(stays=sum(FLOAT * plan.crosscoders[name].features * len(made) for name, made in followed if name))


def select(ground: Ground) -> Cost:
    """Features at the last token of the critical prompts, by two scores."""
    plan, length, joint = ground.plan, ground.assumed.item_tokens, ground.plan.crosscoders[ground.plan.joint]
    tasks = [task for task in plan.study.evaluation.tasks if task.role != "unseen"]
    prompts = ground.assumed.critical * sum(ground.items(task) for task in tasks)
    largest = ground.assumed.critical * max((ground.items(task) for task in tasks), default=0)
    batch, models = plan.study.intervention.batch_size, ground.distinct(joint.models)
    tokens, calls = models * prompts * length, models * prompts / batch
    return Cost(
        parts={
            "models": (
                forward(ground.model, tokens, length, calls, layers=ground.layers, head=False),
                coding(ground.size(joint), 2 * prompts),
            )
        },
        memory={
            "models up to the tap": ground.below(joint.models),
            "crosscoder": ground.size(joint).file_bytes,
            "forward pass": ground.model.forward_bytes(batch * length),
            "features": 4 * FLOAT * largest * joint.features,
        },
        stays=2 * FLOAT * len(tasks) * joint.features,
    )


def intervene(ground: Ground) -> Cost:
    """Two models on every task: below the tap twice, above it once per edit, controls included."""
    plan, model, length = ground.plan, ground.model, ground.assumed.item_tokens
    settings, joint, choices = plan.study.intervention, plan.crosscoders[plan.joint], ground.assumed.choices
    items = 2 * sum(_edited(ground, task) for task in plan.study.evaluation.tasks)
    rows, sequences = items * choices, items * (choices + 1 + settings.controls)
    models, in_pass = ground.distinct(joint.models), settings.batch_size * length
    passes, above = 2 * models * rows, model.shape.layers - ground.layers
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
        },
        memory={
            "models up to the tap": ground.below(joint.models),
            "a whole model": ground.whole,
            "crosscoder": ground.size(joint).file_bytes,
            "forward pass": model.forward_bytes(in_pass) + streams,
            "logits": in_pass * model.shape.vocabulary * (model.value + FLOAT),
        },
    )


def _scores(size: CrosscoderSize) -> int:
    """Bytes of MAS, cosines, density, alive; and of nu (two targets, its controls), beta, and counts."""
    nu = FLOAT * (6 * size.models**2 + 2 * size.models) + 8
    return size.features * (FLOAT * (2 * size.models + size.models**2 + 1) + 1 + nu)


def _summed(size: CrosscoderSize) -> int:
    """Bytes of the sums of latent scaling, and of its control directions."""
    return size.features * (8 * (6 * size.models**2 + 4 * size.models) + FLOAT * size.d_model)


def _edited(ground: Ground, task: TaskSettings) -> float:
    """Items on which a model is edited; those held out are edited twice, with two choices of features."""
    study, items = ground.plan.study, ground.items(task)
    again = 0.0 if task.role == "unseen" else ground.assumed.critical * study.selection.held_out
    return min(items, study.intervention.items or items) * (1 + again)
