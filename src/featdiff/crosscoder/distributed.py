"""Training by several processes under torchrun, in a grid of torch.distributed: rows share the tokens of a batch,
columns the features of the dictionary.

1. Every process harvests tokens of its own; those of a row are put together, so that a row has a share of the batch.
2. Encode and decode the own features; the sum of reconstructions over the row is the reconstruction of its tokens.
3. Gradients are summed over the column; norms, cuts and counts over whoever has a part in them. So all processes take
   the same decisions, and end where a single process ends, but for rounding.

Collectives run in the main thread only, in one order everywhere.
"""

import re
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from featdiff import torchrun
from featdiff.crosscoder.kernels.ranks import Ranks

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for another before the job ends."""
GRACE_SECONDS = 2.0
"""How long a process that lost another one stays, so that torchrun first sees, and names, the one that was lost."""
AGAIN = "start the same command again, and training goes on from its last checkpoint"
DIGITS = ((21, 10), (10, 11), (0, 10))
"""Places and widths of the bits of a positive float32, read as three digits."""


class LostProcess(ValueError):
    """Another process of the job has ended, or does not answer in time."""


class Grid(Ranks):
    """The process group of a job as a grid; the processes of a row have consecutive numbers."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self._mesh = mesh
        # A thread of ours does not share the main thread's current GPU, so that it is named here.
        gpu = mesh.device_type == "cuda"
        self.device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
        self._row, self._column = mesh.get_group("features"), mesh.get_group("tokens")
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.feature_shards = mesh.size(1)

    @staticmethod
    def of(device: str, feature_shards: int) -> "Grid":
        """The grid of all processes of this process group, its rows of `feature_shards` processes each."""
        shape = (dist.get_world_size() // feature_shards, feature_shards)
        return Grid(init_device_mesh(device, shape, mesh_dim_names=("tokens", "features")))

    def sum(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        return self._summed(partial, None)

    def sum_over_features(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        return self._summed(partial, self._row)

    def sum_over_tokens(self, partial: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        return self._summed(partial, self._column)

    def largest(self, some: Float[Tensor, " some"], count: int) -> Float[Tensor, ""]:
        # Positive floats are in the order of their bits, so it is found digit by digit, from a histogram of each.
        assert some.dtype == torch.float32
        bits, prefix = some.view(torch.int32), 0
        for place, width in DIGITS:
            digits = (bits >> place) & ((1 << width) - 1)
            matching = digits[bits >> (place + width) == prefix]
            histogram = self.sum(torch.bincount(matching, minlength=1 << width))
            at_least = histogram.flip(0).cumsum(0).flip(0)
            digit = int((at_least >= count).sum()) - 1
            count -= int(at_least[digit] - histogram[digit])
            prefix = prefix << width | digit
        return torch.tensor(prefix, dtype=torch.int32, device=some.device).view(torch.float32)

    def least_of_largest(self, values: Float[Tensor, "tokens some"], count: int) -> Float[Tensor, " tokens"]:
        largest = values.topk(min(count, values.shape[1]), dim=1, sorted=False).values
        return super().least_of_largest(self._joined(largest.T.contiguous(), self._row).T, count)

    def tokens_of_row(self, values: Float[Tensor, "tokens ..."]) -> Float[Tensor, "more ..."]:
        return self._joined(values, self._row)

    def own(self, whole: Tensor, axis: int | None) -> Tensor:
        return whole if axis is None else whole.chunk(self.feature_shards, axis)[self._mesh.get_local_rank("features")]

    def whole(self, part: Tensor, axis: int | None) -> Tensor:
        return part if axis is None else self._joined(part.movedim(axis, 0), self._row).movedim(0, axis)

    def placed(self, part: Num[Tensor, "features ..."]) -> Num[Tensor, "all ..."]:
        if self.feature_shards == 1:
            return part
        return DTensor.from_local(part, self._mesh, (Replicate(), Shard(0)), run_check=False)

    @contextmanager
    def together(self) -> Generator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = re.sub(r"^\[\S+\] ", "", str(error)).partition("\n")[0].partition(". ")[0]
            raise LostProcess(f"rank {self.rank} lost another process of the job ({reason}); {AGAIN}") from error

    def _joined(self, own: Num[Tensor, "some ..."], group: dist.ProcessGroup) -> Num[Tensor, "all ..."]:
        """The rows of all processes of a group, in the order of their ranks."""
        processes, number = dist.get_world_size(group), dist.get_rank(group)
        if processes == 1:
            return own
        sizes = torch.zeros(processes, dtype=torch.int64, device=own.device)
        sizes[number] = len(own)
        lengths: list[int] = self._summed(sizes, group).tolist()
        padded = own.new_zeros(max(lengths), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in lengths]
        with self.together():
            dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    def _summed(self, partial: Num[Tensor, "*shape"], group: dist.ProcessGroup | None) -> Num[Tensor, "*shape"]:
        with self.together():
            dist.all_reduce(partial, group=group)
        return partial


@contextmanager
def joined(device: str, feature_shards: int) -> Generator[Ranks]:
    """The processes of this torchrun job, once all are there; a process that torchrun did not start is alone.

    `device` is cpu or cuda; under cuda a process has the GPU with its local rank. Raises ValueError for another device,
    where a GPU is missing, and where the processes do not divide into rows of `feature_shards`.
    """
    processes = torchrun.processes()
    if processes % feature_shards:
        raise ValueError(
            f"training.feature_shards is {feature_shards}, but there are {processes} processes; "
            f"give torchrun a multiple of {feature_shards}, or lower training.feature_shards"
        )
    if processes == 1:
        yield Ranks()
        return
    backend = _backend(device)
    dist.init_process_group(backend, timeout=TIMEOUT)
    before = signal.signal(signal.SIGTERM, _told_to_end)
    try:
        grid = Grid.of(device, feature_shards)
        yield grid
        grid.sum(torch.zeros(1))
        dist.destroy_process_group()
    except LostProcess:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(GRACE_SECONDS)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _backend(device: str) -> str:
    match device:
        case "cpu":
            return "gloo"
        case "cuda":
            if torchrun.local_rank() >= torch.cuda.device_count():
                raise ValueError(
                    f"rank {torchrun.rank()} finds no GPU {torchrun.local_rank()}; "
                    f"there are {torch.cuda.device_count()}: lower torchrun's --nproc-per-node"
                )
            torch.cuda.set_device(torchrun.local_rank())
            return "cpu:gloo,cuda:nccl"
        case _:
            raise ValueError(f"lineup.device is {device}; under torchrun it must be cpu or cuda")


def _told_to_end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(
        f"featdiff: rank {torchrun.rank()} was told to end, as it is when another process of the job has ended; {AGAIN}"
    )
