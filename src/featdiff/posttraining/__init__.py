"""Post-training through TRL: one base, identical prompts, two paradigms, checkpoints of each (Sec. 4, A.2, A.3)."""

from pathlib import Path

from featdiff.run.plan import Plan


def run_sft(plan: Plan, folder: Path) -> None:
    """Tune the base on teacher traces."""
    from featdiff.posttraining.stages import sft

    sft(plan, folder)


def run_grpo(plan: Plan, folder: Path) -> None:
    """Tune the base by GRPO."""
    from featdiff.posttraining.stages import grpo

    grpo(plan, folder)


def run_rft(plan: Plan, folder: Path) -> None:
    """Tune the base on right answers of the RL model."""
    from featdiff.posttraining.stages import rft

    rft(plan, folder)
