"""Cost of `dynamics`: features matched across checkpoints and seeds, checkpoints read in the tuned model's place."""

from featdiff.costs.estimate import Cost, CostInputs, Part
from featdiff.crosscoder.sizes import CrosscoderSize


def cost(inputs: CostInputs) -> Cost:
    """All pairs of checkpoints and seeds under every alignment, and the codes of checkpoints."""
    follows = inputs.plan.follows
    followed = [one for tuned in follows for one in _followed(inputs, tuned)]
    matched = (inputs.matching(size, count * (count - 1) // 2) for size, count in followed)
    return Cost(
        parts={
            "matching": sum(matched, Part()),
            "swapping": sum((_swapping(inputs, tuned) for tuned in follows), Part()),
        },
        memory={"crosscoders": max((count * size.file_bytes for size, count in followed), default=0)},
    )


def _followed(inputs: CostInputs, tuned: str) -> list[tuple[CrosscoderSize, int]]:
    """For every alignment, the size of its crosscoders and their number."""
    plan, found = inputs.plan, list[tuple[CrosscoderSize, int]]()
    for alignment in plan.study.dynamics.alignments:
        match alignment:
            case "joint" | "swap":
                name = plan.dynamics(tuned) if alignment == "joint" else plan.swap(tuned)
                names = plan.seeds[name] if name else ()
            case "matched" | "same_seed_index":
                names = tuple(seed for name in plan.per_checkpoint(tuned) for seed in plan.seeds[name])
        if names:
            found.append((inputs.size(plan.crosscoders[names[0]]), len(names)))
    return found


def _swapping(inputs: CostInputs, tuned: str) -> Part:
    """Base, tuned model and checkpoints on held-out tokens, and the codes with each checkpoint in its place."""
    study, name = inputs.plan.study, inputs.plan.swap(tuned)
    if name is None or "swap" not in study.dynamics.alignments:
        return Part()
    checkpoints, seeds = len(inputs.plan.checkpoints[tuned]), len(inputs.plan.seeds[name])
    tokens, context = min(study.dynamics.tokens, study.corpus.held_out_tokens), study.corpus.context
    models = 2 + checkpoints
    calls = models * tokens / (study.activations.batch_size * context)
    coded = inputs.coding(inputs.size(inputs.plan.crosscoders[name]), tokens * (1 + checkpoints) * seeds)
    names = ("base", tuned, *inputs.plan.checkpoints[tuned])
    return inputs.below_tap(models * tokens, context, calls) + coded + inputs.loading_below(names)
