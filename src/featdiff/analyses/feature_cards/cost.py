"""Cost of `examples`: contexts that excite the features of each crosscoder that is shown, and what they write."""

from featdiff.costs.estimate import Cost, CostInputs, Work


def cost(inputs: CostInputs) -> Cost:
    """Held-out text for each crosscoder, coded jointly and without each model; then whole models."""
    study, plan = inputs.plan.study, inputs.plan
    names, tokens = plan.models_of(plan.shown), min(study.examples.tokens, study.corpus.held_out_tokens)
    work: Work = inputs.loading(inputs.distinct(names))
    for name in plan.shown:
        size = inputs.size(plan.crosscoders[name])
        work += inputs.read(inputs.distinct(names), tokens, study.corpus.context, inputs.tokens_per_pass)
        work += inputs.coding(size, (size.models + 2) / 2 * tokens)
    return Cost(work, inputs.reading_memory(names, plan.shown, min(tokens, inputs.tokens_per_pass), whole=1))
