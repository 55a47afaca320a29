"""How specific features form over the checkpoints of a tuned model (Sec. 5.2)."""

from pathlib import Path
from typing import TYPE_CHECKING

from featdiff.config.evidence import AlignmentName
from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan

if TYPE_CHECKING:
    from featdiff.attribution.trajectories import Trajectory


def run(plan: Plan, folder: Path) -> None:
    """Write `<tuned model>.json` (overlap, noise floor and rank shifts under every alignment) and
    `<tuned model>.safetensors` (the specificity of every feature) for every tuned model with checkpoints."""
    from featdiff.analyses.dynamics.compute import write_dynamics

    for tuned in plan.follows:
        tried: dict[AlignmentName, Trajectory | str] = {
            alignment: _trajectory(plan, tuned, alignment) for alignment in plan.study.dynamics.alignments
        }
        write_dynamics(tuned, tried, folder)


def summary(plan: Plan) -> dict[str, Json]:
    """Overlaps over checkpoints by tuned model, with their noise floor."""
    from featdiff.analyses.dynamics.text import headline_numbers

    return {"dynamics": headline_numbers(plan)}


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    from featdiff.analyses.dynamics.text import section_of

    return section_of(plan)


def _trajectory(plan: Plan, tuned: str, alignment: AlignmentName) -> "Trajectory | str":
    """The checkpoints under one alignment; in one line why not, where the run lacks the crosscoders."""
    from featdiff.attribution.alignments import (
        joint_trajectory,
        matched_trajectory,
        same_seed_index_trajectory,
        swap_trajectory,
    )
    from featdiff.run.scored import scored, scored_seeds
    from featdiff.run.swapped import checkpoint_specificity

    checkpoints, top, acceptance = plan.checkpoints[tuned], plan.study.dynamics.top, plan.study.stability.acceptance
    named = ", ".join(checkpoints)
    match alignment:
        case "joint":
            if (name := plan.dynamics(tuned)) is None:
                return f"no crosscoder aligns the base with all of {named}"
            return joint_trajectory(scored_seeds(plan, name), checkpoints, top=top, acceptance=acceptance)
        case "matched" | "same_seed_index":
            if not (names := plan.per_checkpoint(tuned)):
                return f"not every one of {named} has a crosscoder of itself and the base"
            by_seed = zip(*(plan.seeds[name] for name in names), strict=False)  # as many seeds as every checkpoint has
            seeds = [[scored(plan, name) for name in of_seed] for of_seed in by_seed]
            follow = matched_trajectory if alignment == "matched" else same_seed_index_trajectory
            try:
                return follow(seeds, checkpoints, top=top, acceptance=acceptance)
            except ValueError as error:
                return str(error)
        case "swap":
            if (name := plan.swap(tuned)) is None:
                return f"it takes a crosscoder of the base and {tuned} alone, and one that reads {named}"
            seeds = scored_seeds(plan, name)
            specificity = checkpoint_specificity(plan, seeds, checkpoints)
            return swap_trajectory(seeds, specificity, checkpoints, top=top, acceptance=acceptance)
