"""The method's acceptance tests on this installation: worlds with known answers, and what is found of them."""

import sys
from collections.abc import Callable, Iterable

import torch

from featdiff.verify.check import Check, table
from featdiff.verify.exact import exact
from featdiff.verify.null import null
from featdiff.verify.recovery import owners, power, rl_only, turnover
from featdiff.verify.strengths import drift, gains, ratios, shrinkage

__all__ = ["EXPERIMENTS", "Check", "table", "verify"]

Experiment = Callable[[int], list[Check]]
EXPERIMENTS: tuple[Experiment, ...] = (exact, null, shrinkage, ratios, owners, turnover, power, gains, rl_only, drift)
"""Each plants a world with the seed that it is given, trains what it needs, and says what it found."""


def verify(seed: int, experiments: Iterable[Experiment] = EXPERIMENTS) -> list[Check]:
    """What every experiment found, in order; progress goes to stderr.

    One thread does all the work: crosscoders this small gain nothing from a second one.
    """
    chosen = tuple(experiments)
    checks: list[Check] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, experiment in enumerate(chosen, 1):
            tests = experiment.__name__.replace("_", " ")
            print(f"[{number}/{len(chosen)}] {tests}", file=sys.stderr, flush=True)
            checks += experiment(seed)
    finally:
        torch.set_num_threads(threads)
    return checks
