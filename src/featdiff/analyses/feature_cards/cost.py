"""Cost of `examples`: held-out text for each crosscoder that is shown, coded jointly and without each model; then whole
models."""

from featdiff.costs.estimate import Cost, CostInputs


def cost(inputs: CostInputs) -> Cost:
    """Contexts that excite features, and the tokens that they write."""
    study, names = inputs.plan.study, inputs.plan.models_of(inputs.plan.shown)
    sizes = [inputs.size(inputs.plan.crosscoders[name]) for name in inputs.plan.shown]
    tokens, context = min(study.examples.tokens, study.corpus.held_out_tokens), study.corpus.context
    in_pass, seen = min(tokens, study.activations.batch_size * context), len(sizes) * inputs.distinct(names) * tokens
    read = inputs.below_tap(seen, context, seen / in_pass)
    coded = (inputs.coding(size, (size.models + 2) / 2 * tokens) for size in sizes)
    loaded = inputs.loading_below(names) * len(sizes) + inputs.loading(inputs.distinct(names))
    return Cost(
        parts={"models": sum(coded, read + loaded)},
        memory=inputs.reading_memory(names, sizes, in_pass, whole=1, coded=in_pass),
    )
