"""Memory of `train` at its fullest: foreseen before anything is loaded, and refused where less is free.

Only what grows with the study is counted, beside what the process holds already. Nothing that a run holds grows with
its length: the buffer has a size in bytes, and every step uses memory that is there.
"""

import ctypes
import os
import sys
from pathlib import Path

from featdiff import torchrun
from featdiff.crosscoder.sizes import FLOAT
from featdiff.run.plan import Plan
from featdiff.run.sizes import Bytes, StudySizes, fullest, sizes_of

GIB = 2**30
HOST = "cpu"
CORPUS_BYTES = 9  # in the host's memory, per token: as it was read, packed, and the starts of documents
KEPT, MOST_KEPT = 0.7, 512 * 2**20
"""Freed memory that the allocator holds back at most, as a share of all else, and in bytes. glibc keeps blocks of up to
32 MiB for later: that cost up to 0.62 of all else in small studies, and nothing that could be seen in large ones."""


def check_memory(plan: Plan) -> None:
    """Say on stderr, in one line, what `train` needs at its fullest on each device, beside what is in use already.

    Raises ValueError, in one line, where less is free. Where the shape of the models is not known, it says so instead.
    """
    try:
        needed = memory_of_training(sizes_of(plan))
    except ValueError:
        _say(f"memory: not foreseen, since the shape of {plan.study.lineup.base} is not known")
        return
    said = {
        device: f"{_gib(sum(parts.values()))} GiB on {device} ({_words(parts)})" for device, parts in needed.items()
    }
    _say(f"memory: at most {'; '.join(said.values())}")
    for device, parts in needed.items():
        if (free := free_memory(device)) is not None and sum(parts.values()) > free:
            raise ValueError(
                f"training needs {said[device]}, and {_gib(free)} are free; lower "
                "activations.buffer_mib or batch_size, crosscoder.features or training.batch_size, or set lineup.turns"
            )


def memory_of_training(sizes: StudySizes) -> dict[str, Bytes]:
    """Bytes of `train` at its fullest, by device and by what holds them."""
    study, harvested = sizes.plan.study, sizes.plan.harvested
    learning, measuring = sizes.while_training(), sizes.while_measuring()
    copy = sum(size.checkpoint_bytes for size in sizes.sizes)
    held_out = min(study.corpus.held_out_tokens, sizes.room(harvested)) * FLOAT * sizes.shape.d_model
    host: Bytes = {
        "corpus": CORPUS_BYTES * (study.corpus.tokens + study.corpus.held_out_tokens),
        "copy for a checkpoint, held-out streams": max(copy, 2 * len(harvested) * held_out),
    }
    if study.lineup.device != HOST:
        return {study.lineup.device: _with_kept(fullest(learning, measuring)), HOST: _with_kept(host)}
    threads = study.threads or os.cpu_count() or 1  # a CPU takes a step of a crosscoder in each
    steps = sorted((size.step_bytes(study.training.batch_size) for size in sizes.sizes), reverse=True)
    return {HOST: _with_kept(fullest(learning | {"a step": sum(steps[:threads])}, measuring) | host)}


def _with_kept(parts: Bytes) -> Bytes:
    return parts | {"kept by the allocator": min(KEPT * sum(parts.values()), MOST_KEPT)}


def return_freed_memory() -> None:
    """Give back to the system what was freed, where the C library keeps it: one stage of the work after another."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def free_memory(device: str) -> float | None:
    """Bytes that can still be had; None where that cannot be told."""
    if device != HOST:
        import torch

        return float(torch.cuda.mem_get_info(device)[0]) if device.startswith("cuda") else None
    found = [number_in(Path("/proc/meminfo"), "MemAvailable:", 1024), *map(allowed, _groups())]
    known = [number for number in found if number is not None]
    return min(known) if known else float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _groups() -> list[Path]:
    """The control group of this process and those around it, where the system has any."""
    membership, root = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
    lines = membership.read_text(encoding="utf-8").splitlines() if membership.is_file() else []
    own = [root / line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    return [group for folder in own for group in (folder, *folder.parents) if group.is_relative_to(root)]


def allowed(group: Path) -> float | None:
    """What a control group still allows, counting files that may go; None where it sets no limit."""
    limit, used = number_in(group / "memory.max"), number_in(group / "memory.current")
    files = number_in(group / "memory.stat", "inactive_file")
    return None if limit is None or used is None else limit - used + (files or 0)


def number_in(file: Path, name: str = "", unit: int = 1) -> float | None:
    """The number behind a name in a file of the system."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        words = line.removeprefix(name).split()
        if line.startswith(name) and words and words[0].isdigit():
            return float(words[0]) * unit
    return None


def _say(line: str) -> None:
    if not torchrun.rank():
        print(line, file=sys.stderr, flush=True)


def _words(parts: Bytes) -> str:
    return ", ".join(f"{name} {_gib(number)}" for name, number in parts.items())


def _gib(number: float) -> str:
    return f"{number / GIB:.2f}"
