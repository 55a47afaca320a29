"""Cost of `drift`: every model on answers, and beside the base on neutral text; three models and a crosscoder on
held-out text for each; and the tasks, of those models at equal drift that have not been evaluated."""

from featdiff.costs.estimate import Cost, CostInputs, Part
from featdiff.crosscoder.sizes import FLOAT

SEARCHED = 13
"""Divergences that are measured to find the interpolation of equal KL, of all models that moved but one."""


def cost(inputs: CostInputs) -> Cost:
    """Divergences, tails and accuracies between the base and every model; the interpolations stay on the disk."""
    plan, study, length = inputs.plan, inputs.plan.study, inputs.assumed.item_tokens
    steps, context = len(study.drift.alphas) + 1, study.corpus.context
    between = {name: len(set(plan.trail(name).values())) + steps for name in plan.drifting}
    models, others = sum(between.values()), len(plan.drifting) - 1
    tasks = study.evaluation.tasks
    items = sum(min(study.drift.items, inputs.items(task)) for task in tasks)
    searched = models + SEARCHED * (others + 1)
    compared = (1 + searched) * items * length + 4 * models * study.drift.neutral_tokens
    tokens = min(study.drift.tokens, study.corpus.held_out_tokens)
    pairs = {tuned: inputs.size(plan.crosscoders[pair]) for tuned in plan.tuned if (pair := plan.pair(tuned))}
    controls = sum(count for name, count in between.items() if name not in plan.tuned)
    readings = {tuned: between[tuned] + controls + (2 * others if controls else 0) for tuned in pairs}
    batch, in_pass = study.drift.batch_size * context, study.activations.batch_size * context
    read = 3 * sum(readings.values()) * tokens
    coded = (inputs.coding(size, 2 * readings[tuned] * tokens) for tuned, size in pairs.items())
    below = inputs.shape.below(inputs.layers) * inputs.value
    evaluated = 2 * others + len(plan.drifting) - len(plan.tuned)
    logits = inputs.elementwise(4 * FLOAT * compared * inputs.shape.vocabulary)
    predictions = inputs.forward(compared, length, compared / batch) + logits + inputs.loading(2 * searched)
    features = inputs.below_tap(read, context, read / in_pass) + inputs.loading(3 * sum(readings.values()), below)
    return Cost(
        parts={
            "predictions": predictions + inputs.requests(sum(inputs.items(task) for task in tasks)),
            "features": sum(coded, features),
            "accuracy": inputs.answers(evaluated, study.drift.accuracy_items) if evaluated else Part(),
        },
        memory=inputs.reading_memory((), (), batch, whole=3, logits=4 * FLOAT),
        stays=len(plan.drifting) * steps * inputs.whole,
    )
