"""Whether the ways move the same MLP neurons: sets of those that each moves most, their overlaps, and chance."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.analyses.editing_methods.methods import EDITS
from featdiff.files import Record
from featdiff.intervention.neuron_edits import JaccardNull, jaccard, most_moved

BELOW = ("neurons",)
"""Edits that act below the tap as well."""

Shifts = Mapping[str, Float[Tensor, " neurons"]]


def overlap_records(
    shifts: Mapping[str, Shifts], target: str, below: int, share: float, confidence: float
) -> list[Record]:
    """Above the tap for all ways, whose edits there begin; in all blocks for those that act everywhere.

    `below` is the number of neurons up to the tap.
    """
    neurons = len(next(iter(shifts.values()))["shift"])
    above, every = torch.arange(neurons) >= below, torch.ones(neurons, dtype=torch.bool)
    whole = [name for name in shifts if name not in EDITS or name in BELOW]
    found = [_record("above the tap", list(shifts), shifts, target, above, share, confidence)] if above.any() else []
    return [*found, _record("all blocks", whole, shifts, target, every, share, confidence)]


def _record(
    where: str,
    names: Sequence[str],
    shifts: Mapping[str, Shifts],
    target: str,
    among: Bool[Tensor, " neurons"],
    share: float,
    confidence: float,
) -> Record:
    size = max(1, round(share * int(among.sum())))
    chance = JaccardNull(int(among.sum()), size)

    def moved(name: str, which: str) -> Int[Tensor, " n"]:
        return most_moved(shifts[name][which], size, among)

    sets = {name: moved(name, "shift") for name in names}
    controls = {name: [key for key in shifts[name] if key.startswith("control")] for name in names}
    jaccards = [[jaccard(sets[one], sets[other]) for other in names] for one in names]
    return {
        "where": where,
        "ways": list(names),
        "neurons": chance.neurons,
        "size": size,
        "jaccard": jaccards,
        "p": [[chance.p(value) for value in row] for row in jaccards],
        "chance": {"mean": chance.mean, "high": chance.high(confidence)},
        "halves": [jaccard(moved(name, "half0"), moved(name, "half1")) for name in names],
        "target": target,
        "controls": [[jaccard(moved(name, key), sets[target]) for key in controls[name]] for name in names],
    }
