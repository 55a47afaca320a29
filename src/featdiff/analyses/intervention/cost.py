"""Cost of `intervene`: every edit on every task of choices, below the hook point three times, above it once per control
and dose. Under every edit and control of generated answers a whole model writes, while the others read."""

from typing import get_args

from featdiff.config.intervention import ControlName
from featdiff.costs.estimate import Cost, CostInputs, Work


def cost(inputs: CostInputs) -> Cost:
    """Edits of the tuned model and of the base, with their controls and doses."""
    plan, settings = inputs.plan, inputs.plan.study.intervention
    length, choices = inputs.assumed.item_tokens, inputs.assumed.choices
    models, in_pass = plan.crosscoders[plan.joint].models, settings.batch_size * length
    tests, controls = 2 + len(settings.also), sum(map(settings.drawn, get_args(ControlName)))
    edits = tests * (1 + choices + controls) + 2 * len(settings.doses) * (1 + settings.dose_controls)
    items = sum(min(inputs.items(task), settings.items or inputs.items(task)) for task in inputs.tasks)
    return Cost(
        inputs.read(inputs.distinct(models), 3 * tests * items * choices * length, length, in_pass)
        + inputs.requests(inputs.tasks)
        + inputs.edits(items * edits)
        + _generated(inputs, tests),
        inputs.reading_memory(models, (plan.joint,), in_pass, whole=1, logits=in_pass),
    )


def _generated(inputs: CostInputs, tests: int) -> Work:
    """Every variant of every test: the edited model writes, the others follow it a token at a time."""
    plan, controls, found = inputs.plan, inputs.plan.study.intervention.generated_controls, Work()
    others = inputs.distinct(plan.crosscoders[plan.joint].models) - 1
    for task in plan.study.evaluation.tasks if controls else ():
        if task.generates:
            items, written = tests * (1 + controls) * inputs.items(task), inputs.answer_tokens(task)
            answers, read = items * (task.repeats or 1), inputs.assumed.item_tokens + written
            at_once = min(plan.study.evaluation.batch_size, answers) * read / written
            found += inputs.generation(task, items)
            found += inputs.forward(others * answers * read, read, at_once, layers=inputs.layers)
    return found
