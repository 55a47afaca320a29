"""Cost of `quality`: fit of the crosscoders over whole models, on the prompts of the tasks that fit the buffer."""

from featdiff.costs.estimate import Cost, CostInputs


def cost(inputs: CostInputs) -> Cost:
    """Fit of the crosscoders that align tuned models with the base."""
    plan, length = inputs.plan, inputs.assumed.item_tokens
    names = tuple(name for name in plan.lineups if set(plan.crosscoders[name].models) <= set(plan.models))
    tokens = min(length * sum(map(inputs.items, plan.study.evaluation.tasks)), inputs.room(plan.models))
    spliced = inputs.spliced_at_once(plan.study.intervention.batch_size * length, length)
    return Cost(
        inputs.fit(plan.models, names, tokens) + inputs.requests(plan.study.evaluation.tasks),
        inputs.reading_memory(plan.models, names, spliced, whole=1, logits=3 * spliced),
    )
