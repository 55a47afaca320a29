"""Cost of `attribute`: latent scaling on held-out tokens, which all models read once."""

from featdiff.costs.estimate import Cost, CostInputs

SCALED = 2  # sums over codes and activations, in float64, as a multiple of coding


def cost(inputs: CostInputs) -> Cost:
    """One pass over held-out tokens, and the sums of every crosscoder."""
    study, plan = inputs.plan.study, inputs.plan
    tokens, in_pass = min(study.attribution.scaling.tokens, study.corpus.held_out_tokens), inputs.tokens_per_pass
    work = inputs.read(inputs.distinct(plan.harvested), tokens, study.corpus.context, in_pass)
    for size in inputs.sizes:
        work += inputs.coding(size, (1 + SCALED) * tokens)
    return Cost(work, inputs.reading_memory(plan.harvested, tuple(plan.crosscoders), min(tokens, in_pass)))
