"""Which process of a job this is, by the variables that torchrun sets. Without torchrun there is one, of rank 0."""

import os
import sys


def rank() -> int:
    """Number of this process in the job, from 0; process 0 writes and speaks for all."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


def local_rank() -> int:
    """Number of this process on its machine, from 0; it is also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def processes() -> int:
    """Number of processes of the job."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def joined() -> bool:
    """Whether this process has joined the others; before that all of them do, and refuse, the same."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()
