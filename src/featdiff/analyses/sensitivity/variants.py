"""What a sensitivity analysis varies: choices, each of them a curve of crosscoders over sparsity, in groups that train
on one stream.

A group is laid out as a study of its own that differs in its crosscoders, its layer, and the controls of its edits; its
crosscoders lie in the stage's folder, all else in the run. So functions that read a run read a group as well.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from featdiff.config.crosscoder import (
    Alignment,
    BatchTopK,
    CrosscoderLineup,
    CrosscoderPlan,
    Encoder,
    JumpReLU,
    Objective,
    ReLU,
    Shared,
    Sparsity,
    check_blocks,
)
from featdiff.config.intervention import ControlName
from featdiff.config.sensitivity import SensitivitySettings
from featdiff.run.plan import Plan

Trained = Literal["reference", "seed", "objective", "sparsity", "shared", "encoder", "align", "layer"]
Rescored = Literal["norm_p", "space"]
Varied = Objective | Sparsity | Shared | Encoder | Alignment
FIELDS: tuple[Trained, ...] = ("objective", "sparsity", "shared", "encoder", "align")
"""Choices that are settings of a crosscoder, by its field."""
MEASURES = {"weight", "k", "width", "features"}
"""Settings by which a choice is called where that tells it from others."""
OWN = 1.0
"""Strength of the study's own sparsity."""


@dataclass(frozen=True)
class Choice:
    """The study's crosscoder over all models, or the same with one thing changed."""

    kind: Trained
    label: str
    crosscoder: CrosscoderPlan
    layer: int | None
    words: str
    """The label, with all that is not as by default."""

    @property
    def name(self) -> str:
        """For files."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.words).strip("-")


@dataclass(frozen=True)
class Point:
    """One crosscoder: a choice at one strength of its sparsity."""

    choice: Choice
    strength: float

    @property
    def name(self) -> str:
        """For files, and of the crosscoder."""
        return f"{self.choice.name}-x{self.strength:g}"

    @property
    def crosscoder(self) -> CrosscoderPlan:
        """With its sparsity scaled."""
        own = self.choice.crosscoder
        return own.model_copy(update={"sparsity": scaled(own.sparsity, self.strength)})


@dataclass(frozen=True)
class Rescoring:
    """Another way to score the study's crosscoder, for which nothing is trained."""

    kind: Rescored
    value: int | str

    @property
    def label(self) -> str:
        """In words."""
        return f"L{self.value} norm" if self.kind == "norm_p" else f"{self.value} units"


@dataclass(frozen=True)
class Group:
    """Crosscoders of one layer that train together."""

    name: str
    layer: int | None
    points: tuple[Point, ...]
    names: tuple[str, ...]
    """Of the crosscoders, point by point."""
    standing: bool = False
    """Whether the study has them anyway, so that nothing is trained."""


@dataclass(frozen=True)
class Variant:
    """One crosscoder of the analysis, called `name`, with the plan of its group."""

    plan: Plan
    point: Point
    name: str


def settings_of(plan: Plan) -> SensitivitySettings:
    """The analysis that the study asks for."""
    assert plan.study.sensitivity is not None, "the stage exists only where the study has the section"
    return plan.study.sensitivity


def choices_of(plan: Plan) -> tuple[Choice, ...]:
    """The study's own crosscoder, its further seeds, and every choice. ValueError for one that cannot be, or that is no
    change."""
    found = _distinct(tuple(_choices(plan)))
    for position, choice in enumerate(found):
        if same := [other for other in found[:position] if other.name == choice.name]:
            raise ValueError(f"sensitivity gives {same[0].label} twice; give it once")
        if choice.kind != "reference" and (choice.crosscoder, choice.layer) == (found[0].crosscoder, found[0].layer):
            raise ValueError(f"sensitivity gives {choice.label}, which the study has already; leave it out")
        _check(choice, settings_of(plan).strengths)
    return found


def check_layers(plan: Plan, blocks: int) -> None:
    """ValueError for a layer that the models do not have, or that is the study's own."""
    own = plan.study.lineup.layer or max(1, blocks // 2)
    for layer in settings_of(plan).layers:
        if layer == own:
            raise ValueError(f"sensitivity.layers: {layer} is the study's own layer; leave it out")
        if layer > blocks:
            raise ValueError(f"sensitivity.layers: {layer}, but the base has {blocks} blocks; choose 1..{blocks}")


def rescorings_of(plan: Plan) -> tuple[Rescoring, ...]:
    """Other norms and units of the scores."""
    settings, own = settings_of(plan), plan.study.attribution
    found = [Rescoring("norm_p", p) for p in settings.norm_p] + [Rescoring("space", space) for space in settings.space]
    for position, one in enumerate(found):
        if one in found[:position] or one.value in (own.norm_p, own.space):
            raise ValueError(f"sensitivity gives {one.label} twice, or as the study has it; leave it out")
    return tuple(found)


def points_of(plan: Plan) -> tuple[Point, ...]:
    """Every crosscoder of the analysis."""
    strengths = sorted(settings_of(plan).strengths)
    return tuple(Point(choice, strength) for choice in choices_of(plan) for strength in strengths)


def groups_of(plan: Plan) -> tuple[Group, ...]:
    """First those crosscoders that the study has anyway, its own among them; the others by layer, so many at a time as
    train together."""
    named = [(point, _had(plan, point)) for point in points_of(plan)]
    had = [(point, name) for point, name in named if name is not None]
    groups = [Group("study", None, *zip(*had, strict=True), standing=True)]
    points = [point for point, name in named if name is None]
    for layer in dict.fromkeys(point.choice.layer for point in points):
        here = tuple(point for point in points if point.choice.layer == layer)
        size, tag = settings_of(plan).together or len(here), "own" if layer is None else str(layer)
        for start in range(0, len(here), size):
            part = here[start : start + size]
            names = tuple(point.name for point in part)
            groups.append(Group(f"layer-{tag}-{start // size + 1}", layer, part, names))
    return tuple(groups)


def _had(plan: Plan, point: Point) -> str | None:
    """Name of the study's crosscoder that differs in nothing from a point."""
    if point.choice.layer is not None:
        return None
    return next((name for name, one in plan.crosscoders.items() if one == point.crosscoder), None)


def group_plan(plan: Plan, group: Group, folder: Path) -> Plan:
    """The study with a group's crosscoders in place of its own; those that it has not lie in the stage's folder."""
    settings, study = settings_of(plan), plan.study
    others = {name: 0 for name in get_args(ControlName) if name != "activity-matched"}
    intervention = study.intervention.model_copy(
        update={
            "controls": settings.controls,
            "draws": others,
            "also": (),
            "doses": (),
            "items": settings.items or study.intervention.items,
        }
    )
    lineups = {
        name: CrosscoderLineup.model_validate(dict(point.crosscoder))
        for name, point in zip(group.names, group.points, strict=True)
    }
    varied = study.model_copy(
        update={
            "lineup": study.lineup.model_copy(update={"layer": group.layer or study.lineup.layer}),
            "crosscoder": study.crosscoder.model_copy(update={"lineups": lineups, "seeds": ()}),
            "selection": study.selection.model_copy(update={"lineup": group.names[0]}),
            "intervention": intervention,
            "sensitivity": None,
        }
    )
    return Plan(varied, {} if group.standing else {"crosscoders": folder / "crosscoders" / group.name})


def rescored_plan(own: Variant, one: Rescoring) -> Plan:
    """The plan of one crosscoder, scored in another way."""
    study, name = own.plan.study, own.name
    varied = study.model_copy(
        update={
            "attribution": study.attribution.model_copy(update={one.kind: one.value}),
            "crosscoder": study.crosscoder.model_copy(update={"lineups": {name: study.crosscoder.lineups[name]}}),
            "selection": study.selection.model_copy(update={"lineup": name}),
        }
    )
    return Plan(varied, own.plan.run.elsewhere)


def scaled(sparsity: Sparsity, strength: float) -> Sparsity:
    """So many times as strong: beta or the weight times `strength`, k divided by it."""
    match sparsity:
        case ReLU(weight=weight) | JumpReLU(weight=weight):
            return replace(sparsity, weight=weight * strength)
        case BatchTopK(k=k):
            return replace(sparsity, k=max(1, round(k / strength)))


def _choices(plan: Plan) -> Iterator[Choice]:
    settings, own = settings_of(plan), plan.crosscoders[plan.joint]
    yield Choice("reference", "reference", own, None, "reference")
    for seed in settings.seeds:
        yield Choice("seed", f"seed {seed}", own.model_copy(update={"seed": seed}), None, f"seed {seed}")
    for kind in FIELDS:
        given: Sequence[Varied] = getattr(settings, kind)
        for one in given:
            label, words = _words(kind, one, brief=True), _words(kind, one, brief=False)
            yield Choice(kind, label, own.model_copy(update={kind: one}), None, words)
    for layer in settings.layers:
        here = None if layer == plan.study.lineup.layer else layer
        yield Choice("layer", f"layer {layer}", own, here, f"layer {layer}")


def _distinct(choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """Choices whose short labels would be the same are called by all that is not as by default."""
    labels = [choice.label for choice in choices]
    return tuple(
        replace(choice, label=choice.words) if labels.count(choice.label) > 1 else choice for choice in choices
    )


def _words(kind: Trained, choice: Varied, brief: bool) -> str:
    """A choice in words: its kind and how much of it; unless `brief` all that is not as by default."""
    default = asdict(type(choice)())
    given = {
        key: value
        for key, value in asdict(choice).items()
        if key != "kind"
        and ((key in MEASURES if brief else value != default[key]) or (kind == "sparsity" and key in ("weight", "k")))
    }
    values = [f"{key.replace('_', ' ')} {value:g}" for key, value in given.items()]
    return ", ".join([f"{kind} {getattr(choice, 'kind', '')}" if kind != "shared" else "shared block", *values])


def _check(choice: Choice, strengths: Sequence[float]) -> None:
    one = choice.crosscoder
    try:
        check_blocks(one.models, one.features, one.sparsity, one)
    except ValueError as error:
        raise ValueError(f"sensitivity, {choice.label}: {error}") from error
    if isinstance(one.sparsity, BatchTopK):
        kept = [scaled(one.sparsity, strength) for strength in strengths]
        sizes = sorted(each.k for each in kept if isinstance(each, BatchTopK))
        if len(set(sizes)) != len(sizes) or sizes[-1] > one.features:
            raise ValueError(
                f"sensitivity, {choice.label}: the strengths make k {', '.join(map(str, sizes))}; give others, so that "
                f"each k is another one and none exceeds {one.features} features"
            )
