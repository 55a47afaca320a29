"""What a sensitivity analysis costs: every group of crosscoders as a study of its own that trains, scores and edits."""

from dataclasses import replace
from pathlib import Path

from featdiff.analyses.sensitivity.variants import Group, check_layers, group_plan, groups_of, rescorings_of
from featdiff.costs.analysis import attribute, intervene, select
from featdiff.costs.crosscoders import train
from featdiff.costs.estimate_inputs import Cost, Ground, fullest

READ_FROM = 3
"""Crosscoders of a choice whose features are edited: its curve passes the study's L0, and its variance explained,
between two each, and one is mostly the same. Of the study's own all are."""


def sensitivity(ground: Ground) -> Cost:
    """Groups one after another; each reads the corpus anew, unless the study keeps a cache of its streams."""
    check_layers(ground.plan, ground.model.shape.layers)
    groups = groups_of(ground.plan)
    costs = [_group(ground, group) for group in groups]
    names = dict.fromkeys(name for cost in costs for name in cost.parts)
    parts = {name: tuple(work for cost in costs for work in cost.parts.get(name, ())) for name in names}
    scored = attribute(_ground(ground, groups[0])).stays / len(groups[0].points)
    return Cost(
        parts=parts,
        memory=fullest(*(dict(cost.memory) for cost in costs)),
        stays=sum(cost.stays for cost in costs) + len(rescorings_of(ground.plan)) * scored,
        passing=max(cost.passing for cost in costs),
    )


def _group(ground: Ground, group: Group) -> Cost:
    here = _ground(ground, group)
    chosen, edited = select(here), intervene(here)
    (read, *coded), points, tested = chosen.parts["models"], len(group.points), _tested(group)
    parts = {
        "features": (read, *coded * points),
        **{name: tuple(works) * tested for name, works in edited.parts.items()},
    }
    memory = fullest(dict(chosen.memory), dict(edited.memory))
    if group.standing:
        return Cost(parts=parts, memory=memory)
    trained, scored = train(here), attribute(here)
    return Cost(
        parts={**trained.parts, "scores": tuple(scored.parts["models"]), **parts},
        memory=fullest(memory, dict(trained.memory), dict(scored.memory)),
        stays=trained.stays + scored.stays,
        passing=trained.passing,
    )


def _ground(ground: Ground, group: Group) -> Ground:
    return replace(ground, plan=group_plan(ground.plan, group, Path()), layers=group.layer or ground.layers)


def _tested(group: Group) -> int:
    """Crosscoders of a group whose features are edited."""
    strengths: dict[str, list[str]] = {}
    for point in group.points:
        strengths.setdefault(point.choice.name, []).append(point.choice.kind)
    return sum(len(kinds) if kinds[0] == "reference" else min(READ_FROM, len(kinds)) for kinds in strengths.values())
