"""What one training step costs: featdiff beside its peers, interleaved on one machine, on the same data.

    python benchmarks/training_step.py --shape small --peer sae-lens eai-sparsify+tuned ckkissane=PATH --json

Every trainer lives in a process of its own. In every round each takes steps in a row, as in training, in an order that
is drawn anew: one that is not counted, since another's data are in the caches, then one (ten at small shapes). The
medians over the rounds count, and their ratio to featdiff in the same group of processes.
"""

import argparse
import json
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from records import Measured, machine, records, table
from rows import OWN, Row, rows_of
from task import SHAPES, Shape, Task

HERE = Path(__file__).parent
WARM_UP = 2
BATCHES = 8
DENSE_SHARE = 0.3
"""Share of active features in the row `auto-dense`."""


class Worker:
    """A trainer in a process of its own."""

    def __init__(self, row: Row, task: Task, threads: int) -> None:
        self.row = row
        number = str(threads)
        switches = {"OMP_NUM_THREADS": number, "NUMBA_NUM_THREADS": number, "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
        self._log = Path(task.data) / f"{row.name}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [row.python, str(HERE / "worker.py"), task.json()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | switches,
            )
        self.born = self._answer()

    def steps(self, count: int) -> dict[str, float]:
        """Take `count` training steps: their wall seconds, their CPU seconds, and the peak memory so far."""
        return self._ask(f"steps {count}")

    def fit(self) -> dict[str, float]:
        """How well it reconstructs, and with how many features."""
        return self._ask("fit")

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, command: str) -> dict:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        said = [line for line in self._log.read_text().splitlines() if line.strip()]
        last = said[-1].strip() if said else "it said nothing"
        raise ValueError(f"{self.row.name} ended with status {self._process.returncode}: {last}")


@dataclass(frozen=True)
class Plan:
    """How to measure."""

    shape: Shape
    l0: float
    rounds: int
    steps: int
    threads: int
    data: str


def task_of(row: Row, plan: Plan) -> Task:
    """What the worker of `row` runs."""
    dense = row.variant == "auto-dense"
    return Task(
        trainer=row.trainer,
        variant="auto" if dense else row.variant,
        tuned=row.tuned,
        source=row.source,
        data=plan.data,
        shape=plan.shape,
        l0=DENSE_SHARE * plan.shape.features if dense else plan.l0,
    )


def measure(rows: Sequence[Row], plan: Plan) -> list[Measured]:
    """Run `rows` side by side, a round at a time."""
    workers: list[Worker] = []
    order = random.Random(0)
    try:
        for row in rows:
            _note(f"starting {row.name}")
            workers.append(Worker(row, task_of(row, plan), plan.threads))
        before = [worker.fit() for worker in workers]
        for worker in workers:
            worker.steps(WARM_UP)
        answers: dict[str, list[dict[str, float]]] = {row.name: [] for row in rows}
        for number in range(plan.rounds):
            _note(f"round {number + 1} of {plan.rounds}")
            for worker in order.sample(workers, len(workers)):
                worker.steps(1)
                answers[worker.row.name].append(worker.steps(plan.steps))
        after = [worker.fit() for worker in workers]
        return [
            Measured(
                row=worker.row,
                born=worker.born,
                wall=tuple(answer["wall"] / plan.steps for answer in answers[worker.row.name]),
                cpu=tuple(answer["cpu"] / plan.steps for answer in answers[worker.row.name]),
                peak_mib=answers[worker.row.name][-1]["peak_mib"],
                fits=(first, last),
            )
            for worker, first, last in zip(workers, before, after, strict=True)
        ]
    finally:
        for worker in workers:
            worker.stop()


def groups(rows: Sequence[Row], size: int) -> list[list[Row]]:
    """Rows that are measured side by side: at most `size`, and the yardsticks in every group."""
    yardsticks = [row for row in rows if row.yardstick]
    others = [row for row in rows if not row.yardstick]
    parts = [others[start : start + size] for start in range(0, len(others), size)] or [[]]
    return [yardsticks + part for part in parts]


def _without_path(word: str) -> str:
    """Where a peer lies says nothing to others."""
    return re.sub(r"=.*/.*", "=PATH", word)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write_data(shape: Shape, l0: float, folder: str) -> None:
    _note("making activations")
    size = (shape.models, shape.d_model, shape.features, shape.tokens)
    command = [sys.executable, HERE / "data.py", folder, *map(str, size), "--l0", str(l0), "--batches", str(BATCHES)]
    made = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if made.returncode:
        raise ValueError(made.stderr.strip().splitlines()[-1])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small", help="size of the crosscoder and its batches")
    parser.add_argument(
        "--peer", nargs="*", action="extend", default=[], help="NAME[:VARIANT][+tuned][=PATH]", metavar="PEER"
    )
    parser.add_argument("--tuned", action="store_true", help="measure every peer once more with the free switches")
    parser.add_argument(
        "--python", nargs="*", action="extend", default=[], help="interpreter of a peer", metavar="NAME=PATH"
    )
    parser.add_argument("--own", nargs="*", choices=OWN, default=list(OWN), help="rows of featdiff")
    parser.add_argument("--l0", type=float, default=50, help="active features per token")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--residents", type=int, default=3, help="trainers at a time beside featdiff's yardsticks")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def main() -> None:
    """Measure what the command line names, and print it."""
    arguments = _arguments()
    shape = SHAPES[arguments.shape]
    steps = 10 if shape.features < SHAPES["medium"].features else 1
    try:
        rows = rows_of(arguments.own, arguments.peer, arguments.tuned, arguments.python)
        with tempfile.TemporaryDirectory() as folder:
            _write_data(shape, arguments.l0, folder)
            plan = Plan(shape, arguments.l0, arguments.rounds, steps, arguments.threads, folder)
            measured = [measure(group, plan) for group in groups(rows, arguments.residents)]
    except ValueError as error:
        sys.exit(f"training_step.py: {error}")
    document = {
        "command": shlex.join(["python", "benchmarks/training_step.py", *map(_without_path, sys.argv[1:])]),
        "shape": {"name": arguments.shape, **vars(shape)},
        "l0": arguments.l0,
        "rounds": arguments.rounds,
        "steps_per_round": steps,
        "machine": machine(arguments.threads),
        "records": records(measured, shape.tokens),
    }
    print(json.dumps(document, indent=1) if arguments.json else table(document))


if __name__ == "__main__":
    main()
