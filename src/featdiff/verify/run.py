"""All acceptance tests, one after another."""

import sys
from collections.abc import Callable, Iterable

import torch

from featdiff.verify.check import Check
from featdiff.verify.drift import drift
from featdiff.verify.exact import exact
from featdiff.verify.null import null
from featdiff.verify.owners import owners
from featdiff.verify.power import power
from featdiff.verify.ratios import ratios
from featdiff.verify.shrinkage import shrinkage
from featdiff.verify.tails import gains, rl_only
from featdiff.verify.turnover import turnover

Experiment = Callable[[int], list[Check]]
EXPERIMENTS: tuple[Experiment, ...] = (
    exact,
    null,
    shrinkage,
    ratios,
    owners,
    turnover,
    power,
    gains,
    rl_only,
    drift,
)
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
