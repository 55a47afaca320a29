"""Cost of `stability`: the first seed of every lineup, matched with each other one."""

from featdiff.costs.estimate import Cost, CostInputs, Work


def cost(inputs: CostInputs) -> Cost:
    """Cosines of all features of two dictionaries, for every further seed."""
    found = [(inputs.size(inputs.plan.crosscoders[name]), len(seeds)) for name, seeds in inputs.plan.seeds.items()]
    return Cost(
        sum((inputs.matching(size, seeds - 1) for size, seeds in found), Work()),
        {"crosscoders": max((seeds * size.file_bytes for size, seeds in found if seeds > 1), default=0)},
    )
