"""Worlds with known answers, to test the method and to try it out.

world    groups of features: who has them, how strongly, at what angle, and when they fire
stream   a world as a stream for training
interpolation  models interpolated between two models
quiz     a linear readout with planted causal features, and questions with known outcomes
"""

from featdiff.planted.interpolation import interpolated
from featdiff.planted.quiz import Items, Quiz
from featdiff.planted.stream import PlantedState, PlantedStream
from featdiff.planted.world import Group, Magnitude, Sample, World

__all__ = [
    "Group",
    "Items",
    "Magnitude",
    "PlantedState",
    "PlantedStream",
    "Quiz",
    "Sample",
    "World",
    "interpolated",
]
