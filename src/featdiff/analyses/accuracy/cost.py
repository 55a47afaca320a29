"""Cost of `evaluate`: every model on every choice of every item; where answers are generated, on every repetition."""

from featdiff.costs.estimate import Cost, CostInputs
from featdiff.crosscoder.sizes import FLOAT

RECORD_BYTES = 150
"""Of one evaluated item."""


def cost(inputs: CostInputs) -> Cost:
    """Answers of all models, with their records."""
    plan, evaluation = inputs.plan, inputs.plan.study.evaluation
    tokens = evaluation.batch_size * inputs.assumed.item_tokens
    return Cost(
        parts={"models": inputs.answers(len(plan.models))},
        memory=inputs.reading_memory((), (), tokens, whole=1, logits=inputs.value + 2 * FLOAT),
        stays=RECORD_BYTES * len(plan.models) * sum(inputs.items(task) for task in evaluation.tasks),
    )
