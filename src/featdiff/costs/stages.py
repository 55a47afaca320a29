"""The stages of a study in order, each with its cost on given devices."""

from dataclasses import dataclass

from featdiff.costs.analysis import (
    attribute,
    drift,
    dynamics,
    evaluate,
    examples,
    intervene,
    select,
    stability,
    ways,
)
from featdiff.costs.crosscoders import quality, train
from featdiff.costs.estimate_inputs import Cost, Ground
from featdiff.costs.posttraining import grpo, rft, sft
from featdiff.costs.sensitivity import sensitivity

LIBRARIES = 0.75e9
"""Bytes that a process holds before any tensor: its libraries, or the context of a GPU."""
SPREAD = ("train",)
"""Stages that run on all devices; every other one takes a single device."""


@dataclass(frozen=True)
class Part:
    """Something that a stage computes."""

    flops: float
    seconds: float


@dataclass(frozen=True)
class StageEstimate:
    """Cost of one stage."""

    name: str
    devices: int
    parts: dict[str, Part]
    memory: dict[str, float]
    """Bytes on one device at its fullest, by what holds them; empty where next to nothing is computed."""
    stays: float
    """Bytes on the disk once the stage is done."""
    at_most: float
    """Bytes on the disk while it runs."""

    @property
    def flops(self) -> float:
        """FLOPs on all devices."""
        return sum(part.flops for part in self.parts.values())

    @property
    def seconds(self) -> float:
        """Time, the parts one after another."""
        return sum(part.seconds for part in self.parts.values())

    @property
    def peak(self) -> float:
        """Bytes on one device."""
        return sum(self.memory.values())


def estimate(ground: Ground) -> list[StageEstimate]:
    """The stages of the study in order. What a study is given (models, texts) is no part of its memory on the disk."""
    from featdiff.workflow.registry import stages_of

    return [_priced(ground, stage.name, _cost(ground, stage.name)) for stage in stages_of(ground.plan)]


def _priced(ground: Ground, name: str, cost: Cost) -> StageEstimate:
    devices = ground.hardware.devices if name in SPREAD else 1
    return StageEstimate(
        name=name,
        devices=devices,
        parts={
            part: Part(
                flops=sum(work.flops for work in works),
                seconds=sum(work.seconds(ground.hardware, devices) for work in works),
            )
            for part, works in cost.parts.items()
        },
        memory={**cost.memory, "libraries": LIBRARIES} if cost.memory else {},
        stays=cost.stays,
        at_most=cost.stays + cost.passing,
    )


def _cost(ground: Ground, stage: str) -> Cost:
    posttrain = ground.plan.study.posttrain
    match stage:
        case "sft" if posttrain:
            return sft(ground, posttrain, posttrain.sft)
        case "grpo" if posttrain:
            return grpo(ground, posttrain, posttrain.grpo)
        case "rft" if posttrain and posttrain.rejection:
            return rft(ground, posttrain, posttrain.rejection)
        case "evaluate":
            return evaluate(ground)
        case "train":
            return train(ground)
        case "attribute":
            return attribute(ground)
        case "stability":
            return stability(ground)
        case "dynamics":
            return dynamics(ground)
        case "quality":
            return quality(ground)
        case "select":
            return select(ground)
        case "intervene":
            return intervene(ground)
        case "ways":
            return ways(ground)
        case "sensitivity":
            return sensitivity(ground)
        case "drift":
            return drift(ground)
        case "examples":
            return examples(ground)
        case _:  # inputs and report: seconds, and a few megabytes
            return Cost()
