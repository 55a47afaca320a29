"""The run of a study: its plan, its folder, and what lies in it."""

from pathlib import Path

from featdiff.run.plan import Plan


def train_crosscoders(plan: Plan, folder: Path) -> None:
    """Train the crosscoders of the study, and measure how well they fit held-out text."""
    from featdiff.run.train import train

    train(plan, folder)
