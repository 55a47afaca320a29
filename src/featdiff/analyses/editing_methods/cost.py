"""Cost of `ways`: choosing on one half of the items, then every way of editing with its controls on the other half and
on unseen tasks. Features are edited above the tap; the others in whole models, where an item's choices share their
context."""

from featdiff.costs.estimate import Cost, CostInputs
from featdiff.crosscoder.sizes import FLOAT


def cost(inputs: CostInputs) -> Cost:
    """Features, steering vectors, neurons and tuned weights, and their side effects."""
    plan, length, choices = inputs.plan, inputs.assumed.item_tokens, inputs.assumed.choices
    settings, text = plan.study.ways, plan.study.intervention.neutral_tokens
    joint, batch = plan.crosscoders[plan.joint], plan.study.intervention.batch_size
    halves, tested = 0.0, 0.0
    for task in plan.study.evaluation.tasks:
        there, seen = inputs.items(task), task.role != "unseen"
        halves += min(settings.items, there / 2) if seen else 0
        tested += min(settings.items, there / 2) if seen else min(2 * settings.items, there)
    once = (1 + settings.tried_controls) * halves
    swept = len(settings.strengths) * once + (1 + settings.controls) * tested
    above = swept + (1 + settings.controls) * tested
    counted = len(settings.neuron_shares) * once + (1 + settings.controls) * tested
    whole = swept + counted + 2 * choices * (halves + tested)
    examined = 4 * (1 + settings.examined) + len(plan.tuned)
    looked_at = examined * (2 * text + inputs.assumed.critical * halves * length)
    size, models = inputs.size(joint), inputs.distinct(joint.models)
    read = models * choices * (4 * halves + 2 * tested)
    requests = inputs.requests(2 * sum(inputs.items(task) for task in plan.study.evaluation.tasks))
    return Cost(
        parts={
            "below the tap": inputs.below_tap(read * length, length, read / batch)
            + inputs.coding(size, read * length / models)
            + inputs.loading_below(joint.models)
            + requests,
            "features": inputs.above_tap(above * length, length, above / batch),
            "steering, neurons": inputs.forward(whole * length, length, whole / batch, head=False) + inputs.loading(2),
            "side effects, neurons moved": inputs.forward(looked_at, length, looked_at / (batch * length)),
        },
        memory=inputs.reading_memory(joint.models, [size], batch * length, whole=2, logits=inputs.value + FLOAT),
    )
