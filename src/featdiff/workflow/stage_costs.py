"""Cost of every stage of a study, in order."""

from dataclasses import dataclass

from featdiff.analyses.accuracy.cost import cost as evaluate
from featdiff.analyses.drift.cost import cost as drift
from featdiff.analyses.dynamics.cost import cost as dynamics
from featdiff.analyses.editing_methods.cost import cost as ways
from featdiff.analyses.feature_cards.cost import cost as examples
from featdiff.analyses.intervention.cost import cost as intervene
from featdiff.analyses.ownership.cost import cost as attribute
from featdiff.analyses.quality.cost import cost as quality
from featdiff.analyses.selection.cost import cost as select
from featdiff.analyses.sensitivity.cost import cost as sensitivity
from featdiff.analyses.stability.cost import cost as stability
from featdiff.costs.estimate import Cost, CostInputs
from featdiff.costs.training import cost as train
from featdiff.posttraining.cost import grpo, rft, sft

LIBRARIES = 0.75e9
"""Bytes that a process holds before any tensor: its libraries, or the context of a GPU."""
COSTS = {
    "sft": sft,
    "grpo": grpo,
    "rft": rft,
    "evaluate": evaluate,
    "train": train,
    "attribute": attribute,
    "stability": stability,
    "dynamics": dynamics,
    "quality": quality,
    "drift": drift,
    "select": select,
    "intervene": intervene,
    "ways": ways,
    "sensitivity": sensitivity,
    "examples": examples,
}
"""Of `inputs` and `report` nothing is computed: seconds, and a few megabytes."""
ON_ALL_DEVICES = ("train",)


@dataclass(frozen=True)
class StageCost:
    """A stage with its cost, and the devices that it runs on."""

    name: str
    devices: int
    cost: Cost


def stage_costs(inputs: CostInputs) -> list[StageCost]:
    """The stages in order. What a study is given (models, texts) is no part of its bytes on the disk."""
    found: list[StageCost] = []
    for stage in inputs.plan.stages():
        cost = COSTS[stage.name](inputs) if stage.name in COSTS else Cost()
        memory = {**cost.memory, "libraries": LIBRARIES} if cost.memory else {}
        devices = inputs.devices if stage.name in ON_ALL_DEVICES else 1
        found.append(StageCost(stage.name, devices, Cost(cost.parts, memory, cost.stays, cost.passing)))
    return found
