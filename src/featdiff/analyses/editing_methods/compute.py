"""`ways`: the tuned model's behaviour put into the base in four ways, compared on items that none was chosen on.

For each way: reliability (the selecting tasks), generalization (unseen tasks), side effects (on text, on the form and
the histogram of answers), and the MLP neurons that it moves; beside random edits as large.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from featdiff.analyses.editing_methods.items import TaskItems, items_of
from featdiff.analyses.editing_methods.methods import EDITS, Made, Workshop, way_names
from featdiff.analyses.editing_methods.overlap import overlap_records
from featdiff.config.study import BASE
from featdiff.files import Record, read_json, write_json
from featdiff.intervention.effects import control_interval
from featdiff.intervention.neuron_edits import NeuronStatistics
from featdiff.intervention.pooled_effects import TaskChange, pooled_effect
from featdiff.intervention.side_effects import TextShift, text_shift
from featdiff.intervention.steering import (
    EditingMethod,
    PromptEndStates,
    UneditedModel,
    prompt_end_states,
    text_logits,
)
from featdiff.models.neurons import neurons_per_block
from featdiff.progress import Progress
from featdiff.run.held_out import held_out_corpus
from featdiff.run.plan import Plan
from featdiff.run.splice import Part as TextPart
from featdiff.run.splice import packed_parts
from featdiff.stats import Flips, stratified_bootstrap

FEWEST = 2
"""Critical items of a half from which the spread of a neuron can be told."""
NOTHING_TO_COMPARE = (
    "no features were selected on the choosing half, or fewer than two critical items lie in one of the halves; "
    "so no way could be made or measured"
)


def ways(plan: Plan, folder: Path) -> None:
    """Write `<way>.json` and `<way>.safetensors` (how far it moves each neuron) for every way; all in `ways.json`."""
    selection = read_json(plan.run.path("selection", "selection.json"))
    workshop = Workshop.of(plan, selection["without_held_out"]["chosen"])
    held_out = items_of(plan, workshop.bench.lineup, "held out")
    assert held_out is not None, "features were selected, so some task took part"
    fewest = min(int(half.critical.sum()) for half in (workshop.choosing, held_out))
    if fewest < FEWEST or not len(workshop.features):
        write_json(folder / "ways.json", {"ways": [], "overlap": [], "note": NOTHING_TO_COMPARE})
        return
    width, names = neurons_per_block(workshop.base), way_names(plan)
    missing = [name for name in names if not (folder / f"{name}.json").is_file()]
    if missing:
        bench = _Measure(workshop, held_out)
        with Progress("ways", total=len(missing), unit="way") as progress:
            for name in missing:
                bench.write(folder, workshop.make(name))
                progress.advance()
    target, layers = plan.study.selection.model, workshop.bench.lineup.layers
    shifts = {name: load_file(folder / f"{name}.safetensors") for name in names}
    settings, confidence = plan.study.ways, plan.study.intervention.confidence
    made: Record = {
        "target": target,
        "features": workshop.features.tolist(),
        "choosing": _described(workshop.choosing),
        "ways": [read_json(folder / f"{name}.json") for name in names],
        "overlap": overlap_records(shifts, target, layers * width, settings.moved_share, confidence),
    }
    write_json(folder / "ways.json", made)


class _Measure:
    """What every way is measured on, read once, and the base there."""

    def __init__(self, workshop: Workshop, held_out: TaskItems) -> None:
        self._workshop, self._plan = workshop, workshop.plan
        self._held_out, self._unseen = held_out, items_of(workshop.plan, workshop.bench.lineup, "unseen")
        self._critical = held_out.only(held_out.critical)
        self._base = UneditedModel(workshop.base)
        self._text = _neutral_parts(self._plan)
        self._ends = prompt_end_states(self._base, self._critical, batch_size=workshop.batch_size)

    def write(self, folder: Path, made: Made) -> None:
        """Measure one way; its record is written last, so that what lies there is whole."""
        examined = [made.way, *made.controls[: self._plan.study.ways.examined]]
        ends = [prompt_end_states(way, self._critical, batch_size=self._workshop.batch_size) for way in examined]
        drifts = self._drifts(examined)
        record: Record = {
            "name": made.name,
            "title": made.title,
            "edit": made.name in EDITS,
            "control": made.kind if made.controls else None,
            "tried": [list(pair) for pair in made.tried],
            "reliability": self._answers(made, self._held_out),
            "generalization": None if self._unseen is None else self._answers(made, self._unseen),
            "side_effects": drifts[0].to_json() | {"control_kl": [one.to_json()["kl"] for one in drifts[1:]]},
            "answer_format": {"before": _share(self._ends.in_form), "after": _share(ends[0].in_form)},
        }
        save_file(self._shifts(ends), folder / f"{made.name}.safetensors")
        write_json(folder / f"{made.name}.json", record)

    def _shifts(self, ends: list[PromptEndStates]) -> dict[str, Float[Tensor, " neurons"]]:
        """How far a way moves each neuron: on all items, on every second one and the rest; and its controls, on all."""
        here, there = self._ends.neurons, ends[0].neurons
        base = NeuronStatistics.of(here)
        first, second = (
            NeuronStatistics(here[start::2].mean(dim=0), base.std).shift(there[start::2]) for start in (0, 1)
        )
        controls = {f"control{number}": base.shift(one.neurons) for number, one in enumerate(ends[1:])}
        return {"shift": base.shift(there), "half0": first, "half1": second, **controls}

    def _answers(self, made: Made, items: TaskItems) -> Record:
        """Changes of accuracy by set of items, and how far the histogram of predictions moves."""
        if isinstance(made.way, UneditedModel):
            right = torch.stack([items.correct[name] for name in (BASE, made.name)])
            predicted = torch.stack([items.prediction[name] for name in (BASE, made.name)])
        else:
            right, predicted = self._workshop.predicted([made.way, *made.controls], items.requests)
        every = torch.ones_like(items.critical)
        sets = {"critical": items.critical, "mirror": items.mirror, "all": every}
        changes = {name: self._change(made, items, wanted, right) for name, wanted in sets.items()}
        return changes | {"histogram_shift": _histogram_shift(items, predicted[0], predicted[1])}

    def _change(
        self, made: Made, items: TaskItems, wanted: Bool[Tensor, " items"], right: Bool[Tensor, "variants items"]
    ) -> Record:
        """One set: the mean change over tasks, and that under each control."""
        settings, seed = self._plan.study.intervention, self._plan.study.seed
        tasks = [wanted & items.of_task(task) for task in range(len(items.tasks))]
        flips = [Flips.of(right[0, part], right[1, part]) for part in tasks]
        options = {"resamples": settings.bootstrap, "confidence": settings.confidence, "seed": seed}
        if not made.controls:
            change = stratified_bootstrap(flips, **options)
            value = None if change.value != change.value else change.value
            return {"n": sum(one.n for one in flips), "change": value, "interval": [change.low, change.high]}
        drawn = [_drawn(right[:, part]) for part in tasks]
        parts = [TaskChange(one, {made.kind: draws}) for one, draws in zip(flips, drawn, strict=True)]
        found = pooled_effect(parts, "increase", **options)
        record: Record = found.to_json()
        record["verdict"] = found.verdict.replace("random features", "its controls")
        if found.flips.n:
            control = control_interval(found.controls[made.kind], settings.confidence)
            value = found.change.value
            record["beyond"] = {"value": value - control.value, "interval": [value - control.high, value - control.low]}
        return record

    def _drifts(self, ways: list[EditingMethod]) -> list[TextShift]:
        """What each way does to neutral text."""
        totals = [TextShift(0.0, 0.0, 0.0, 0)] * len(ways)
        for part in self._text:
            plain = text_logits(self._base, part.input_ids, part.position_ids)
            for number, way in enumerate(ways):
                moved = text_logits(way, part.input_ids, part.position_ids)
                totals[number] += text_shift(plain, moved, part.labels.to(plain.device))
        return totals


def _drawn(right: Bool[Tensor, "variants some"]) -> Float[np.ndarray, " draws"]:
    """The change of accuracy under each control; 0 where there are no items."""
    shares = right.double().sum(dim=1) / max(1, right.shape[1])
    return (shares[2:] - shares[0]).numpy()


def _neutral_parts(plan: Plan) -> list[TextPart]:
    """So many rows of held-out text as hold the tokens that the study wants; all where there are fewer."""
    corpus = held_out_corpus(plan)
    rows = -(-plan.study.intervention.neutral_tokens // corpus.input_ids.shape[1])
    some = corpus.select(torch.arange(min(rows, len(corpus.input_ids))))
    return packed_parts(some, plan.study.activations.batch_size) if rows else []


def _histogram_shift(items: TaskItems, before: Int[Tensor, " items"], after: Int[Tensor, " items"]) -> float:
    """Total variation between how often each place is predicted before and after; mean over tasks."""
    places, shifts = int(items.requests.choice_counts.max()), []
    for here in (items.of_task(task) for task in range(len(items.tasks))):
        if not here.any():
            continue
        counts = [torch.bincount(one[here], minlength=places).double() / int(here.sum()) for one in (before, after)]
        shifts.append(float((counts[0] - counts[1]).abs().sum() / 2))
    return sum(shifts) / len(shifts)


def _share(values: Bool[Tensor, " some"]) -> float:
    return float(values.double().mean())


def _described(items: TaskItems) -> Record:
    return {"tasks": list(items.tasks), "items": len(items.task_of), "critical": int(items.critical.sum())}
