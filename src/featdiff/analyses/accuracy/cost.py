"""Cost of `evaluate`: every model on every choice of every item; where answers are generated, on every repetition."""

from featdiff.costs.estimate import Cost, CostInputs

RECORD_BYTES = 150  # of one evaluated item


def cost(inputs: CostInputs) -> Cost:
    """Answers of all models, with their records."""
    models, evaluation = len(inputs.plan.models), inputs.plan.study.evaluation
    tokens = evaluation.batch_size * inputs.assumed.item_tokens
    return Cost(
        inputs.answers(models),
        inputs.reading_memory((), (), tokens, whole=1, logits=tokens),
        stays=RECORD_BYTES * models * sum(map(inputs.items, evaluation.tasks)),
    )
