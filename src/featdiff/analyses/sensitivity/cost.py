"""Cost of `sensitivity`: every group of crosscoders as a study of its own that trains, scores and edits."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from featdiff.analyses.intervention.cost import cost as intervene
from featdiff.analyses.ownership.cost import cost as attribute
from featdiff.analyses.selection.cost import cost as select
from featdiff.analyses.sensitivity.variants import Group, check_layers, group_plan, groups_of
from featdiff.costs.estimate import Cost, CostInputs, Work
from featdiff.costs.training import cost as train
from featdiff.run.sizes import fullest

READ_FROM = 3
"""Crosscoders of a choice whose features are edited: its curve passes the study's L0, and its variance explained,
between two each, and one is mostly the same. Of the study's own all are."""


def cost(inputs: CostInputs) -> Cost:
    """Groups one after another; each reads the corpus anew."""
    check_layers(inputs.plan, inputs.shape.layers)
    found = [one for group in groups_of(inputs.plan) for one in _group(inputs, group)]
    return Cost(
        work=sum((one.work for one in found), Work()),
        memory=fullest(*(dict(one.memory) for one in found)),
        stays=sum(one.stays for one in found),
        passing=max(one.passing for one in found),
    )


def _group(inputs: CostInputs, group: Group) -> list[Cost]:
    """Its prompts are coded by every crosscoder; edited are those that decide."""
    plan = group_plan(inputs.plan, group, Path())
    here = replace(inputs, plan=plan, layers=group.layer or inputs.layers, devices=1)
    strengths = Counter((point.choice.name, point.choice.kind) for point in group.points)
    edited = sum(count if kind == "reference" else min(READ_FROM, count) for (_, kind), count in strengths.items())
    found = [select(here)] * len(group.points) + [intervene(here)] * edited
    return found if group.standing else [train(here), attribute(here), *found]
