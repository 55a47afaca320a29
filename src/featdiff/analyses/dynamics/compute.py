"""Specific features over the checkpoints of one tuned model; `attribution.alignments` compares them."""

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from featdiff.analyses.dynamics.result import CheckpointOverlap, Dynamics
from featdiff.attribution.trajectories import Alignment, Trajectory
from featdiff.files import save


def write_dynamics(tuned: str, tried: Mapping[Alignment, Trajectory | str], folder: Path) -> Dynamics:
    """Keep what was found of the checkpoints of one tuned model.

    Args:
        tuned: the tuned model.
        tried: by alignment the trajectory, or in one line why there is none.
        folder: gets `<tuned>.json`, the result, and `<tuned>.safetensors`, the specificity of every feature
            [checkpoints features] by alignment, that of `Dynamics.main` also as `specificity`.

    ValueError where no alignment is possible.
    """
    found: dict[Alignment, Trajectory] = {name: one for name, one in tried.items() if not isinstance(one, str)}
    missing: dict[Alignment, str] = {name: one for name, one in tried.items() if isinstance(one, str)}
    if not found:
        raise ValueError(f"the checkpoints of {tuned} cannot be compared: {'; '.join(missing.values())}")
    overlaps: dict[Alignment, CheckpointOverlap] = {name: overlap_of(one) for name, one in found.items()}
    result = Dynamics(overlaps, missing)
    save(result, folder / f"{tuned}.json")
    tensors = {f"specificity.{name}": one.specificity.contiguous() for name, one in found.items()}
    tensors["specificity"] = tensors[f"specificity.{result.main.alignment}"].clone()
    save_file(tensors, folder / f"{tuned}.safetensors")
    return result


def overlap_of(found: Trajectory) -> CheckpointOverlap:
    """What a result keeps of a trajectory."""
    shifts = zip(found.rank_shift, found.counted, strict=False)  # nothing follows the last checkpoint
    return CheckpointOverlap(
        alignment=found.alignment,
        checkpoints=found.checkpoints,
        seeds=found.seeds,
        ranked=tuple(tuple(row) for row in found.ranked.tolist()),
        overlap=_rows(found.overlap),
        chance=found.chance,
        noise_floor=found.noise_floor,
        floors=None if found.floors is None else _row(found.floors),
        between_seeds=None if found.between_seeds is None else _rows(found.between_seeds),
        relative=None if found.relative is None else _rows(found.relative),
        counted=found.counted,
        rank_shift=tuple(_row(row[:counted]) for row, counted in shifts),
    )


def _rows(values: Float[Tensor, "rows columns"]) -> tuple[tuple[float | None, ...], ...]:
    return tuple(_row(row) for row in values)


def _row(values: Float[Tensor, " columns"]) -> tuple[float | None, ...]:
    return tuple(None if value != value else value for value in values.tolist())
