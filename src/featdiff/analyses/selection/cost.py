"""Cost of `select`: features at the last token of the prompts of the tasks on which features are chosen."""

from featdiff.costs.estimate import Cost, CostInputs


def cost(inputs: CostInputs) -> Cost:
    """Prompts read up to the hook point."""
    plan, length, models = inputs.plan, inputs.assumed.item_tokens, inputs.plan.crosscoders[inputs.plan.joint].models
    tasks = [task for task in plan.study.evaluation.tasks if task.role != "unseen"]
    tokens, batch = sum(map(inputs.items, tasks)) * length, plan.study.intervention.batch_size * length
    return Cost(
        inputs.read(inputs.distinct(models), tokens, length, batch) + inputs.requests(tasks),
        inputs.reading_memory(models, (plan.joint,), batch),
    )
