"""Cost of `attribute`: MAS, cosines and density from the weights; latent scaling on held-out tokens, which all models
read once."""

from featdiff.costs.estimate import Cost, CostInputs, Part
from featdiff.run.plan import CrosscoderPlan

PROJECTED_BYTES = 100
"""Written per token and feature beyond coding: codes in float64, as a sparse matrix, and the projections."""
GATHERED_BYTES = 32
"""Read per active feature and value of its targets, which are two, in float64."""


def cost(inputs: CostInputs) -> Cost:
    """One pass over held-out tokens, and the sums of every crosscoder."""
    study, names = inputs.plan.study, inputs.plan.harvested
    tokens, context = min(study.attribution.scaling.tokens, study.corpus.held_out_tokens), study.corpus.context
    in_pass, models = min(tokens, study.activations.batch_size * context), inputs.distinct(names)
    read = inputs.below_tap(models * tokens, context, models * tokens / in_pass)
    scaled = (_scaling(inputs, one, tokens) for one in inputs.plan.crosscoders.values())
    return Cost(
        parts={"models": sum(scaled, read + inputs.loading_below(names))},
        memory=inputs.reading_memory(names, inputs.sizes, in_pass, coded=in_pass),
    )


def _scaling(inputs: CostInputs, one: CrosscoderPlan, tokens: int) -> Part:
    size = inputs.size(one)
    l0 = float(one.sparsity.k) if one.sparsity.kind == "batchtopk" else inputs.assumed.l0
    gathered = inputs.work(moved=GATHERED_BYTES * tokens * min(l0, size.features) * size.width)
    return inputs.coding(size, tokens) + gathered + inputs.elementwise(PROJECTED_BYTES * tokens * size.features)
