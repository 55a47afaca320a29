"""Cost of `stability`: the first seed of every lineup, matched with each other one."""

from featdiff.costs.estimate import Cost, CostInputs, Part


def cost(inputs: CostInputs) -> Cost:
    """Cosines of all features of two dictionaries, for every further seed."""
    found = [(inputs.size(inputs.plan.crosscoders[name]), len(seeds)) for name, seeds in inputs.plan.seeds.items()]
    several = [(size, seeds) for size, seeds in found if seeds > 1]
    return Cost(
        parts={"matching": sum((inputs.matching(size, seeds - 1) for size, seeds in several), Part())},
        memory={"crosscoders": max((seeds * size.file_bytes for size, seeds in several), default=0)},
    )
