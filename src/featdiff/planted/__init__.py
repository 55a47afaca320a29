"""Worlds with known answers, to test the method and to try it out.

world    groups of features: who has them, how strongly, at what angle, and when they fire; models interpolated between
         two models; a world as a stream for training
quiz     a linear readout with planted causal features, and questions with known outcomes
"""

from featdiff.planted.quiz import Items, Quiz
from featdiff.planted.world import Group, Magnitude, PlantedState, PlantedStream, Sample, World, interpolated

__all__ = ["Group", "Items", "Magnitude", "PlantedState", "PlantedStream", "Quiz", "Sample", "World", "interpolated"]
