"""Cost of `select`: features at the last token of the prompts, and the scores of all items."""

from featdiff.costs.estimate import Cost, CostInputs


def cost(inputs: CostInputs) -> Cost:
    """Prompts of the tasks on which features are chosen, read up to the hook point."""
    plan, length, joint = inputs.plan, inputs.assumed.item_tokens, inputs.plan.crosscoders[inputs.plan.joint]
    tasks = [task for task in plan.study.evaluation.tasks if task.role != "unseen"]
    prompts = sum(inputs.items(task) for task in tasks)
    largest = max((inputs.items(task) for task in tasks), default=0)
    size = inputs.size(joint)
    batch, models = plan.study.intervention.batch_size, inputs.distinct(joint.models)
    read = inputs.below_tap(models * prompts * length, length, models * prompts / batch)
    return Cost(
        parts={
            "models": read
            + inputs.coding(size, 3 * prompts)
            + inputs.loading_below(joint.models)
            + inputs.requests(prompts)
        },
        memory=inputs.reading_memory(joint.models, [size], batch * length, coded=largest),
    )
