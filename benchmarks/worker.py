"""One trainer in a process of its own: it takes training steps when the controller asks, and says what they cost.

Commands come line by line on stdin (`steps N`, `fit`, `stop`); answers leave as JSON lines on stdout.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import switches
from task import Task

FITTED = 256


def main() -> None:
    """Answer until told to stop."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what trainers print does not belong among the answers
    task = Task.from_json(sys.argv[1])
    thrown = switches.keep_memory() if task.tuned else []
    if task.trainer == "featdiff":
        from featdiff.openmp import spin_briefly

        spin_briefly()  # as the command line does
        import own as adapter
    else:
        import peers as adapter
    if task.tuned:
        thrown += switches.fast_products()
    loaded = adapter.load(task)
    imports = peak_mib()
    trainer = loaded.build()
    _say(answers, {"version": loaded.version, "switches": thrown, "imports_mib": imports, **_libraries()})
    trainer.train(_batches(trainer, Path(task.data), answers))


def peak_mib() -> float:
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _batches(trainer, folder: Path, answers: TextIO) -> Iterator:
    """Batches for a training loop, which is halted between steps while the controller has others take theirs.

    A step lasts from the moment when the loop gets a batch to the moment when it asks for the next.
    """
    from data import read_batch

    number, left, wall, cpu = 0, 0, 0.0, 0.0
    while True:
        while not left:
            if number:
                _say(answers, {"wall": wall, "cpu": cpu, "peak_mib": peak_mib()})
            left, wall, cpu = _next_steps(trainer, folder, answers), 0.0, 0.0
        batch = read_batch(folder, number)
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        yield batch
        wall += time.perf_counter() - wall_start
        cpu += time.process_time() - cpu_start
        number, left = number + 1, left - 1


def _next_steps(trainer, folder: Path, answers: TextIO) -> int:
    """How many steps to take now. The process ends here when told to stop, or when the controller is gone."""
    for line in sys.stdin:
        match line.split():
            case ["steps", count]:
                return int(count)
            case ["fit"]:
                _say(answers, _fit(trainer, folder))
            case _:
                break
    raise SystemExit


def _fit(trainer, folder: Path) -> dict[str, float]:
    """How well tokens of the first batch are reconstructed (share of their variance that is left), and by how many
    features. They are few, so that no peak of memory comes from here."""
    import torch
    from data import read_batch

    batch = read_batch(folder, 0)[:FITTED]
    with torch.no_grad():
        rebuilt, features = trainer.rebuild(batch)
    left = (rebuilt.reshape(len(batch), -1) - batch.flatten(1)).square().sum()
    variation = (batch - batch.mean(dim=0)).square().sum()
    return {"unexplained": float(left / variation), "l0": float((features > 0).sum() / len(batch))}


def _libraries() -> dict[str, object]:
    import torch

    return {"python": sys.version.split()[0], "torch": torch.__version__, "threads": torch.get_num_threads()}


def _say(answers: TextIO, answer: dict) -> None:
    answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
