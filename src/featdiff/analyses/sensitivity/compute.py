"""`sensitivity`: the study's crosscoder over all models with one thing changed at a time, compared at equal L0 and at
equal variance explained.

1. Every choice is trained at every strength of its sparsity, unless the study has that crosscoder anyway; what shares a
   layer trains on one stream.
2. Each crosscoder is measured and scored as the study's own.
3. Each chooses features, which are compared with those of the study's own.
4. The paper's two edits are made with them: of the study's own at every strength, of others where their curve comes to
   the study's L0 or variance explained.

Each crosscoder's part of each step is a file or folder, so a killed attempt is gone on with.
"""

from collections.abc import Callable
from pathlib import Path

from featdiff.analyses.ownership import run as attribute
from featdiff.analyses.sensitivity.features import choose_features, edit_features
from featdiff.analyses.sensitivity.record import sensitivity_record
from featdiff.analyses.sensitivity.variants import (
    OWN,
    Place,
    Rescoring,
    check_layers,
    group_plan,
    groups_of,
    points_of,
    rescored_plan,
    rescorings_of,
    settings_of,
)
from featdiff.config.study import BASE
from featdiff.files import Record, write_json
from featdiff.models.loading import depth
from featdiff.run.evaluation import selecting_tasks
from featdiff.run.plan import Plan
from featdiff.run.train import train


def sensitivity(plan: Plan, folder: Path) -> None:
    """Write `crosscoders/`, `attribution/`, `choices/`, `effects/`, and `sensitivity.json` with all comparisons."""
    check_layers(plan, depth(plan.paths[BASE], trust_remote_code=plan.study.lineup.trust_remote_code))
    places = _trained(plan, folder)
    own = next(place for place in places if place.point.choice.kind == "reference" and place.point.strength == OWN)
    rescored = {one.label: _rescored(own, one, folder) for one in rescorings_of(plan)}
    if selecting_tasks(plan):
        choose_features(settings_of(plan), places, own, folder)
        edit_features(places, own, folder)
    write_json(folder / "sensitivity.json", sensitivity_record(plan, places, own, rescored, folder))


def _trained(plan: Plan, folder: Path) -> list[Place]:
    """Train and score what is missing, a group at a time."""
    places = list[Place]()
    for group in groups_of(plan):
        varied = group_plan(plan, group, folder)
        places += [Place(varied, point, name) for point, name in zip(group.points, group.names, strict=True)]
        if group.standing:
            continue
        _whole(folder / "crosscoders" / group.name, lambda place, varied=varied: train(_tolerant(varied), place))
        _whole(folder / "attribution" / group.name, lambda place, varied=varied: attribute(varied, place))
    order = points_of(plan)
    return sorted(places, key=lambda place: order.index(place.point))


def _tolerant(varied: Plan) -> Plan:
    """The plan of a variant, whose fit may be poor: that is one of the things compared."""
    training = varied.study.training.model_copy(update={"accept_poor_fit": True})
    return Plan(varied.study.model_copy(update={"training": training}), varied.run.elsewhere)


def _rescored(own: Place, one: Rescoring, folder: Path) -> Record:
    """The tails of the study's own crosscoder under another norm, or in other units."""
    varied = rescored_plan(own, one, folder)
    _whole(varied.run.path("attribution"), lambda place: attribute(varied, place))
    return Place(varied, own.point, own.name).tails()


def _whole(place: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside its place, and put it there when it is whole; nothing where that has been done."""
    if place.is_dir():
        return
    partial = place.with_name(f"{place.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    write(partial)
    partial.rename(place)
