"""Cost of `quality`: fit of the crosscoders over whole models, on the prompts of the tasks that fit the buffer."""

from featdiff.costs.estimate import Cost, CostInputs


def cost(inputs: CostInputs) -> Cost:
    """Fit of the crosscoders that align tuned models with the base."""
    plan, length = inputs.plan, inputs.assumed.item_tokens
    names = tuple(name for name in plan.lineups if set(plan.crosscoders[name].models) <= set(plan.models))
    items = sum(inputs.items(task) for task in plan.study.evaluation.tasks)
    fit = inputs.fit(plan.models, names, min(length * items, inputs.room(plan.models)))
    return Cost(
        parts={"fit": fit + inputs.requests(items) + inputs.loading_below(plan.models)},
        memory={
            "models up to the tap": inputs.below(plan.models),
            "crosscoders": sum(inputs.size(plan.crosscoders[name]).file_bytes for name in names),
            **inputs.splicing_memory(plan.study.intervention.batch_size * length, length),
        },
    )
