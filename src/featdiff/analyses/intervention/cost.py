"""Cost of `intervene`: every edit on every task of choices, below the tap three times, above it once per control and
dose. Under every edit and control of generated answers a whole model writes, while the others read up to the tap."""

from typing import get_args

from featdiff.config.intervention import ControlName
from featdiff.config.study import TaskSettings
from featdiff.costs.estimate import Cost, CostInputs, Part
from featdiff.crosscoder.sizes import FLOAT


def cost(inputs: CostInputs) -> Cost:
    """Edits of the tuned model and of the base, with their controls and doses."""
    plan, length = inputs.plan, inputs.assumed.item_tokens
    settings, joint, choices = plan.study.intervention, plan.crosscoders[plan.joint], inputs.assumed.choices
    tests, controls = 2 + len(settings.also), sum(settings.drawn(kind) for kind in get_args(ControlName))
    tasks = [task for task in plan.study.evaluation.tasks if not task.generates]
    written = [task for task in plan.study.evaluation.tasks if task.generates and settings.generated_controls]
    items = tests * sum(_edited(inputs, task) for task in tasks)
    swept = 2 * sum(min(inputs.items(task), settings.items or inputs.items(task)) for task in tasks)
    swept *= len(settings.doses) * (1 + settings.dose_controls)
    rows, sequences = items * choices, items * (choices + 1 + controls) + swept
    size = inputs.size(joint)
    models, batch = inputs.distinct(joint.models), settings.batch_size
    passes, in_pass = 3 * models * rows, batch * length
    below = inputs.below_tap(passes * length, length, passes / batch) + inputs.coding(size, rows * length)
    edited = inputs.above_tap(sequences * length, length, sequences / batch) + inputs.elementwise(
        FLOAT * sequences * inputs.shape.vocabulary
    )
    text = 2 * 2 * (1 + settings.side_controls) * settings.neutral_tokens
    once = 2 * sum(inputs.items(task) for task in tasks)
    return Cost(
        parts={
            "below the tap": below + inputs.requests(once) + inputs.loading_below(joint.models) * 2,
            "edits, controls": edited + inputs.loading(2),
            "side effects": inputs.forward(text, length, text / in_pass),
            **({"generated answers": _generated(inputs, written, tests)} if written else {}),
        },
        memory=inputs.reading_memory(joint.models, [size], in_pass, whole=1, logits=inputs.value + FLOAT),
    )


def _edited(inputs: CostInputs, task: TaskSettings) -> float:
    """Items on which a model is edited; those held out are edited twice, with two choices of features."""
    study, items = inputs.plan.study, inputs.items(task)
    again = 0.0 if task.role == "unseen" else inputs.assumed.critical * study.selection.held_out
    return min(items, study.intervention.items or items) * (1 + again)


def _generated(inputs: CostInputs, tasks: list[TaskSettings], tests: int) -> Part:
    """Every variant of every test: the edited model writes, the others follow it up to the tap, a token at a time."""
    plan, found = inputs.plan, Part()
    others = inputs.distinct(plan.crosscoders[plan.joint].models) - 1
    times = tests * (1 + plan.study.intervention.generated_controls)
    for task in tasks:
        count, longest = times * inputs.items(task) * (task.repeats or 1), inputs.answer_tokens(task)
        read = inputs.assumed.item_tokens + longest
        calls = others * longest * count / min(plan.study.evaluation.batch_size, count)
        found += inputs.generation(task, times * inputs.items(task))
        found += inputs.below_tap(others * count * read, read, calls)
    return found
