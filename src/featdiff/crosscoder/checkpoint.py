"""Checkpoints of a training run: a folder each, complete or absent, the last two kept.

A checkpoint holds everything that the rest of the run depends on: its tensors as safetensors, and in checkpoint.json
the settings that they belong to. A run that was killed goes on from it to the same bytes as an undisturbed one.

Several processes write it through torch.distributed.checkpoint, each what lies with it, and so any other number of
processes can read it.
"""

import json
import os
import shutil
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.files import read_json, replace_folder, write_json

KEPT = 2
RECORD = "checkpoint.json"


@dataclass(frozen=True, eq=False)
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
    ranks: Ranks = field(default_factory=Ranks)

    def newest(self, like: dict[str, Tensor]) -> Checkpoint | None:
        """The last complete checkpoint, or the one before where the last is damaged; None in a new run.

        Of a tensor that is a DTensor in `like`, this process reads what it holds of it; of others, all.
        """
        for path in reversed(self._paths()):
            if _whole(path):
                return self._read(path, like)
        return None

    def write(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint, then drop all but the last two. A tensor that is no DTensor is the same everywhere."""
        part = self.folder / "checkpoint.part"
        if self.ranks.rank == 0:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True, exist_ok=True)  # another process may have been faster
        if self.ranks.count == 1:
            _save(checkpoint.tensors, part / "tensors.safetensors")
        else:
            tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
            with self.ranks.together(), _one_line("write"):
                save(tensors, storage_writer=HuggingFaceStorageWriter(str(part), save_distributed=True))
        if self.ranks.rank == 0:
            record = {
                "step": checkpoint.step,
                "fast_products": checkpoint.fast_products,
                "fingerprint": self.fingerprint,
                "files": sorted(path.name for path in part.glob("*.safetensors")),
            }
            write_json(part / RECORD, record)
            replace_folder(part, self.folder / f"step-{checkpoint.step:09d}")
            for path in self._paths()[:-KEPT]:
                shutil.rmtree(path)

    def remove(self) -> None:
        """Delete all checkpoints, once the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*[0-9]"))

    def _read(self, path: Path, like: dict[str, Tensor]) -> Checkpoint:
        record = read_json(path / RECORD)
        if record["fingerprint"] != json.loads(json.dumps(self.fingerprint)):
            raise ValueError(
                f"{path} belongs to a run with other settings; "
                f"delete {self.folder} to train anew, or restore those settings"
            )
        tensors: dict[str, Tensor] = {}
        for name, stored in HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata.items():
            assert isinstance(stored, TensorStorageMetadata)
            wanted, empty = like.get(name), torch.empty(stored.size, dtype=stored.properties.dtype)
            tensors[name] = torch.empty_like(wanted) if isinstance(wanted, DTensor) else empty
        with self.ranks.together(), _one_line("read"):
            alone = self.ranks.count == 1
            load(tensors, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=alone)
        own = {name: tensor.to_local() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()}
        return Checkpoint(record["step"], record["fast_products"], own)


def _whole(path: Path) -> bool:
    """Whether all files of a checkpoint are there and have their full length."""
    try:
        for name in read_json(path / RECORD)["files"]:
            with safe_open(path / name, framework="pt"):
                pass
    except (SafetensorError, ValueError, OSError):
        return False
    return True


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    # Clones, since safetensors refuses tensors that share memory, and a stream may hand out views of one buffer.
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def _one_line(what: str) -> Generator[None]:
    """Turn a failure of any process into one line, and say nothing of there being one process only."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            yield
    except CheckpointException as error:
        rank, (cause, _) = next(iter(error.failures.items()))
        raise ValueError(f"rank {rank} could not {what} a checkpoint: {cause}") from error
