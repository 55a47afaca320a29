"""`dynamics`: follow specific features over the checkpoints of every tuned model, under each declared alignment."""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from featdiff.attribution.alignments import (
    joint_trajectory,
    matched_trajectory,
    same_seed_index_trajectory,
    swap_trajectory,
)
from featdiff.attribution.stability import ScoredCrosscoder
from featdiff.attribution.swap import swap_specificity
from featdiff.attribution.trajectories import Alignment, Trajectory
from featdiff.files import Json, Record, write_json
from featdiff.run.held_out import held_out_activations
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan
from featdiff.run.scored import plain, scored, scored_seeds


@dataclass(frozen=True)
class Missing:
    """Why a trajectory could not be made, in one line."""

    reason: str


def dynamics(plan: Plan, folder: Path) -> None:
    """Write `<tuned model>.json`: overlap, noise floor and rank shifts under every alignment, the first of them at the
    top, and why others are missing; `<tuned model>.safetensors` holds the specificity of every feature."""
    for tuned in plan.follows:
        tried = {alignment: _trajectory(plan, tuned, alignment) for alignment in plan.study.dynamics.alignments}
        found = {alignment: one for alignment, one in tried.items() if isinstance(one, Trajectory)}
        by_alignment: Record = {alignment: _record(one) for alignment, one in found.items()}
        missing: Record = {alignment: one.reason for alignment, one in tried.items() if isinstance(one, Missing)}
        if not found:
            raise ValueError(f"the checkpoints of {tuned} cannot be compared: {'; '.join(missing.values())}")
        first = "joint" if "joint" in found else next(iter(found))
        by_model = {"by_alignment": by_alignment, "missing": missing}
        write_json(folder / f"{tuned}.json", by_alignment[first] | by_model)
        tensors = {"specificity": found[first].specificity}
        tensors |= {f"specificity.{alignment}": one.specificity.clone() for alignment, one in found.items()}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / f"{tuned}.safetensors")


def _trajectory(plan: Plan, tuned: str, alignment: Alignment) -> Trajectory | Missing:
    checkpoints = plan.checkpoints[tuned]
    rules = {"top": plan.study.dynamics.top, "acceptance": plan.study.stability.acceptance}
    match alignment:
        case "joint":
            name = plan.dynamics(tuned)
            if name is None:
                return Missing(f"no crosscoder aligns the base with all of {', '.join(checkpoints)}")
            return joint_trajectory(scored_seeds(plan, name), checkpoints, **rules)
        case "matched" | "same_seed_index":
            if not (names := plan.per_checkpoint(tuned)):
                return Missing(f"not every one of {', '.join(checkpoints)} has a crosscoder of itself and the base")
            pairs = _pairs(plan, names)
            try:
                if alignment == "matched":
                    return matched_trajectory(pairs, checkpoints, **rules)
                return same_seed_index_trajectory(pairs, checkpoints, **rules)
            except ValueError as error:
                return Missing(str(error))
        case "swap":
            if (name := plan.swap(tuned)) is None:
                read = ", ".join(checkpoints)
                return Missing(f"it takes a crosscoder of the base and {tuned} alone, and one that reads {read}")
            seeds = scored_seeds(plan, name)
            return swap_trajectory(seeds, _swapped(plan, seeds, checkpoints), checkpoints, **rules)


def _pairs(plan: Plan, names: tuple[str, ...]) -> list[list[ScoredCrosscoder]]:
    """The crosscoders of base and checkpoint by seed, then by checkpoint: as many seeds as all of them have."""
    rows = [[scored(plan, of_seed) for of_seed in plan.seeds[name]] for name in names]
    return [list(of_seed) for of_seed in zip(*rows, strict=False)]


def _swapped(
    plan: Plan, seeds: list[ScoredCrosscoder], checkpoints: tuple[str, ...]
) -> list[Float[Tensor, "checkpoints features"]]:
    """Specificity of the features of each seed with every checkpoint in the tuned model's place, on held-out tokens."""
    study, models = plan.study, seeds[0].crosscoder.models
    lineup = load_lineup(plan, tuple(dict.fromkeys((*models, *checkpoints))))
    return swap_specificity(
        [one.crosscoder for one in seeds],
        held_out_activations(plan, lineup, study.dynamics.tokens),
        checkpoints,
        p=study.attribution.norm_p,
        space=study.attribution.space,
        min_active=study.dynamics.min_active,
    )


def _record(found: Trajectory) -> Record:
    record: dict[str, Json] = {
        "alignment": found.alignment,
        "checkpoints": list(found.checkpoints),
        "seeds": found.seeds,
        "ranked": plain(found.ranked),
        "overlap": plain(found.overlap),
        "chance": found.chance,
        "noise_floor": found.noise_floor,
        "floors": plain(found.floors),
        "between_seeds": plain(found.between_seeds),
        "relative": plain(found.relative),
        "counted": list(found.counted),
        "rank_shift": plain(found.rank_shift),
    }
    return record
