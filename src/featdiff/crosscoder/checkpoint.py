"""Checkpoints of a training run: one safetensors file each, complete or absent, the last two kept.

A checkpoint holds everything that the rest of the run depends on, and in its metadata the settings that it belongs to:
a run that was killed goes on from it to the same bytes as an undisturbed one.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps."""

    step: int
    fast_products: bool
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run in `folder`; `fingerprint` names the run's settings, so that another run's are not
    taken for it."""

    folder: Path
    fingerprint: dict[str, object]

    def newest(self) -> Checkpoint | None:
        """The last complete checkpoint, or the one before where the last is damaged; None in a new run."""
        for path in reversed(self._paths()):
            try:
                return self._read(path)
            except SafetensorError:
                continue
        return None

    def write(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint, then drop all but the last two."""
        self.folder.mkdir(parents=True, exist_ok=True)
        metadata = {
            "step": str(checkpoint.step),
            "fast_products": json.dumps(checkpoint.fast_products),
            "fingerprint": json.dumps(self.fingerprint, sort_keys=True),
        }
        # Clones, since safetensors refuses tensors that share memory, and a stream may hand out views of one buffer.
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in checkpoint.tensors.items()}
        part = self.folder / "checkpoint.part"
        save_file(tensors, part, metadata)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(self.folder / f"step-{checkpoint.step:09d}.safetensors")
        for path in self._paths()[:-KEPT]:
            path.unlink()

    def remove(self) -> None:
        """Delete all checkpoints, once the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))

    def _read(self, path: Path) -> Checkpoint:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if json.loads(metadata["fingerprint"]) != json.loads(json.dumps(self.fingerprint)):
                raise ValueError(
                    f"{path} belongs to a run with other settings; "
                    f"delete {self.folder} to train anew, or restore those settings"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- safe_open is no mapping
        return Checkpoint(int(metadata["step"]), json.loads(metadata["fast_products"]), tensors)
