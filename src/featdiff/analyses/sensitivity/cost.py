"""Cost of `sensitivity`: every group of crosscoders as a study of its own that trains, scores and edits."""

from dataclasses import replace
from pathlib import Path

from featdiff.analyses.intervention.cost import cost as intervene
from featdiff.analyses.ownership.cost import cost as attribute
from featdiff.analyses.selection.cost import cost as select
from featdiff.analyses.sensitivity.variants import Group, check_layers, group_plan, groups_of
from featdiff.costs.estimate import Cost, CostInputs, Part
from featdiff.costs.training import cost as train
from featdiff.run.sizes import fullest

READ_FROM = 3
"""Crosscoders of a choice whose features are edited: its curve passes the study's L0, and its variance explained,
between two each, and one is mostly the same. Of the study's own all are."""


def cost(inputs: CostInputs) -> Cost:
    """Groups one after another; each reads the corpus anew."""
    check_layers(inputs.plan, inputs.shape.layers)
    groups = groups_of(inputs.plan)
    costs = [_group(inputs, group) for group in groups]
    parts: dict[str, Part] = {}
    for one in costs:
        for name, part in one.parts.items():
            parts[name] = parts.get(name, Part()) + part
    return Cost(
        parts=parts,
        memory=fullest(*(dict(one.memory) for one in costs)),
        stays=sum(one.stays for one in costs),
        passing=max(one.passing for one in costs),
    )


def _group(inputs: CostInputs, group: Group) -> Cost:
    """Its prompts are coded by every crosscoder; edited are those that decide."""
    here, points, tested = _inputs(inputs, group), len(group.points), _tested(group)
    chosen, edited = select(here), intervene(here)
    parts = {"features": chosen.total * points, **{name: part * tested for name, part in edited.parts.items()}}
    memory = fullest(dict(chosen.memory), dict(edited.memory))
    if group.standing:
        return Cost(parts=parts, memory=memory)
    trained, scored = train(replace(here, devices=1)), attribute(here)
    return Cost(
        parts={**trained.parts, "scores": scored.total, **parts},
        memory=fullest(memory, dict(trained.memory), dict(scored.memory)),
        stays=trained.stays,
        passing=trained.passing,
    )


def _inputs(inputs: CostInputs, group: Group) -> CostInputs:
    return replace(inputs, plan=group_plan(inputs.plan, group, Path()), layers=group.layer or inputs.layers)


def _tested(group: Group) -> int:
    """Crosscoders of a group whose features are edited."""
    strengths: dict[str, list[str]] = {}
    for point in group.points:
        strengths.setdefault(point.choice.name, []).append(point.choice.kind)
    return sum(len(kinds) if kinds[0] == "reference" else min(READ_FROM, len(kinds)) for kinds in strengths.values())
