"""Progress of long work, to stderr: a bar with rate and time left on a terminal, one line a minute otherwise."""

import sys
import time
from typing import NoReturn

from tqdm import tqdm

from featdiff import torchrun

SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """Counts the steps of one piece of work and shows how far it is; of several processes only the first shows it.

    >>> with Progress("training", total=3, unit="step") as progress:
    ...     for _ in range(3):
    ...         progress.advance()
    """

    def __init__(self, name: str, total: int, unit: str, done: int = 0) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._done = self._start = done
        self._began = self._said = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty() and not torchrun.rank():
            self._bar = tqdm(total=self._total, initial=self._done, desc=self._name, unit=self._unit, leave=False)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, steps: int = 1) -> None:
        """Count `steps` more as done."""
        self._done += steps
        if self._bar is not None:
            self._bar.update(steps)
        elif time.monotonic() - self._said >= SECONDS_BETWEEN_LINES and not torchrun.rank():
            self._said = time.monotonic()
            rate = max(self._done - self._start, 1) / (self._said - self._began)
            left = max(self._total - self._done, 0) / rate
            units = f"{self._unit}{'es' if self._unit.endswith('ch') else 's'}"
            line = f"{self._name}: {self._done}/{self._total} {units}, {rate:.3g} a second, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)
