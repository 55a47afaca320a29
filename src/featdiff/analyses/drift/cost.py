"""Cost of `drift`: divergences on answers and neutral text; three models and a crosscoder on held-out text for each;
and the tasks, of those models at equal drift that have not been evaluated."""

from featdiff.costs.estimate import Cost, CostInputs, Work

SEARCHED = 13  # divergences that are measured to find the interpolation of equal KL, of every model that moved


def cost(inputs: CostInputs) -> Cost:
    """Divergences, tails and accuracies between the base and every model; the interpolations stay on the disk."""
    plan, study, length = inputs.plan, inputs.plan.study, inputs.assumed.item_tokens
    steps, batch = len(study.drift.alphas) + 1, study.drift.batch_size * study.corpus.context
    moved, others = len(plan.drifting), len(plan.drifting) - 1
    between = sum(len(set(plan.trail(name).values())) + steps for name in plan.drifting)
    compared = between + SEARCHED * moved
    items = sum(min(study.drift.items, inputs.items(task)) for task in study.evaluation.tasks)
    tokens = compared * items * length + 4 * between * study.drift.neutral_tokens
    work = inputs.forward(tokens, length, batch) + inputs.loading(2 * compared)
    evaluated = 2 * others + moved - len(plan.tuned)
    work += inputs.answers(evaluated, study.drift.accuracy_items) if evaluated else Work()
    held_out = min(study.drift.tokens, study.corpus.held_out_tokens)
    for pair in filter(None, map(plan.pair, plan.tuned)):
        work += inputs.read(3 * between, held_out, study.corpus.context, inputs.tokens_per_pass)
        work += inputs.coding(inputs.size(plan.crosscoders[pair]), 2 * between * held_out)
    return Cost(work, inputs.reading_memory((), (), batch, whole=3, logits=2 * batch), moved * steps * inputs.whole)
