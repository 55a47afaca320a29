"""Cost of `ways`: strengths and numbers tried on one half of the items, then every way with its controls on the other.
Features are edited above the hook point; steering vectors, neurons and tuned weights in whole models."""

from featdiff.costs.estimate import Cost, CostInputs


def cost(inputs: CostInputs) -> Cost:
    """Features, steering vectors, neurons and tuned weights."""
    plan, settings, tasks = inputs.plan, inputs.plan.study.ways, inputs.plan.study.evaluation.tasks
    models, batch = plan.crosscoders[plan.joint].models, plan.study.intervention.batch_size * inputs.assumed.item_tokens
    items = sum(min(settings.items, inputs.items(task) / 2) for task in tasks)
    tried, tested = 1 + settings.tried_controls, 2 * (1 + settings.controls)
    strengths, shares = len(settings.strengths), len(settings.neuron_shares)
    read = 6 * items * inputs.assumed.choices * inputs.assumed.item_tokens
    return Cost(
        inputs.read(inputs.distinct(models), read, inputs.assumed.item_tokens, batch)
        + inputs.requests(tasks)
        + inputs.loading(2)
        + inputs.edits(items * (strengths * tried + tested))
        + inputs.edits(items * ((strengths + shares) * tried + tested), inputs.shape.layers),
        inputs.reading_memory(models, (plan.joint,), batch, whole=2, logits=batch),
    )
