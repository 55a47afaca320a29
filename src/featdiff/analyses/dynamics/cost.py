"""Cost of `dynamics`: features matched across checkpoints and seeds, checkpoints read in the tuned model's place."""

from math import comb

from featdiff.costs.estimate import Cost, CostInputs, Work


def cost(inputs: CostInputs) -> Cost:
    """All pairs of crosscoders of checkpoints, and the codes of checkpoints."""
    plan, study, work, held = inputs.plan, inputs.plan.study, Work(), 0.0
    tokens = min(study.dynamics.tokens, study.corpus.held_out_tokens)
    for tuned in plan.follows:
        if singles := [seed for name in plan.per_checkpoint(tuned) for seed in plan.seeds[name]]:
            size = inputs.size(plan.crosscoders[singles[0]])
            work += inputs.matching(size, comb(len(singles), 2))
            held = max(held, len(singles) * size.file_bytes)
        if (swap := plan.swap(tuned)) and "swap" in study.dynamics.alignments:
            checkpoints, size = plan.checkpoints[tuned], inputs.size(plan.crosscoders[swap])
            work += inputs.read(1 + len(checkpoints), tokens, study.corpus.context, inputs.tokens_per_pass)
            work += inputs.coding(size, tokens * (1 + len(checkpoints)) * len(plan.seeds[swap]))
            held = max(held, len(plan.seeds[swap]) * size.file_bytes)
    return Cost(work, {"crosscoders": held})
