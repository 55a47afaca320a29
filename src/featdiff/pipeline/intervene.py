"""`intervene`: zero the chosen features in the tuned model and amplify them in the base, beside random ones."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from featdiff.activations.models import Lineup, load_model
from featdiff.attribution import Attribution
from featdiff.causal.controls import activity_matched
from featdiff.causal.effects import Answers, Effect, ItemSets, measure
from featdiff.causal.intervention import Edit, UpperModel, activity, correctness, score
from featdiff.causal.records import Requests
from featdiff.crosscoder import Crosscoder
from featdiff.pipeline.attribute import attribution_of
from featdiff.pipeline.evaluate import choice_tasks, outcomes_of, requests_of
from featdiff.pipeline.plan import Plan
from featdiff.pipeline.select import crosscoder_and_lineup, held_out_parts
from featdiff.runs import read_json, write_json
from featdiff.study import BASE, TaskSettings


@dataclass(frozen=True)
class Bench:
    """All that an intervention on one model needs."""

    plan: Plan
    crosscoder: Crosscoder
    lineup: Lineup
    upper: UpperModel
    attribution: Attribution
    model: str
    value: float

    def edit(self, features: Int[Tensor, " n"]) -> Edit:
        return Edit(features, self.value, self.plan.study.intervention.positions)


def intervene(plan: Plan, folder: Path) -> None:
    """Write `<model>/<task>.json` for each model and task, and all of them in `effects.json`.

    When no feature was chosen there is nothing to edit: the list of effects is empty and says why.
    """
    selection = read_json(plan.run.path("selection", "selection.json"))
    chosen = torch.tensor(selection["chosen"], dtype=torch.long)
    half = torch.tensor(selection["without_held_out"]["chosen"], dtype=torch.long)
    if not len(chosen):
        write_json(folder / "effects.json", {"effects": [], "records": [], "note": selection["rule"]})
        return
    for model, value in ((plan.study.selection.model, 0.0), (BASE, plan.study.intervention.amplify)):
        bench = None
        for task in choice_tasks(plan):
            place = folder / model / f"{task.name}.json"
            if not place.is_file():
                bench = bench or _bench(plan, model, value)
                effect = _effect(bench, task, chosen, half)
                write_json(place, {"effect": effect.to_json(), "record": effect.to_record()})
    made = [
        read_json(folder / model / f"{task.name}.json")
        for model in (plan.study.selection.model, BASE)
        for task in choice_tasks(plan)
    ]
    write_json(
        folder / "effects.json", {"effects": [m["effect"] for m in made], "records": [m["record"] for m in made]}
    )


def _bench(plan: Plan, model: str, value: float) -> Bench:
    crosscoder, lineup = crosscoder_and_lineup(plan)
    settings = plan.study.lineup
    whole = load_model(
        plan.paths[model],
        dtype=settings.dtype,
        device=settings.device,
        trust_remote_code=settings.trust_remote_code,
    )
    upper = UpperModel(whole, lineup.layers)
    return Bench(plan, crosscoder, lineup, upper, attribution_of(plan, plan.joint), model, value)


def _effect(bench: Bench, task: TaskSettings, chosen: Int[Tensor, " n"], half: Int[Tensor, " half"]) -> Effect:
    """One edit on one task. Features for held-out items were chosen without them; of unseen tasks all are held out."""
    plan, settings = bench.plan, bench.plan.study.intervention
    requests = requests_of(plan, task.name, bench.lineup)
    items = _sampled(len(requests.sample_ids), settings.items, plan.study.seed)
    outcomes = outcomes_of(plan, task.name)
    tuned = plan.study.selection.model
    held_out = outcomes.critical(BASE, tuned) if task.role == "unseen" else held_out_parts(plan, task.name).held_out
    sets = ItemSets(
        critical=_within(items, outcomes.critical(BASE, tuned)),
        mirror=_within(items, outcomes.mirror(BASE, tuned)),
        held_out=_within(items, held_out),
    )
    requests = requests.select(items)
    before, answers = _answers(bench, requests, chosen)
    held = answers if task.role == "unseen" else _on_part(bench, requests, half, sets.held_out, before)
    return measure(
        task.name,
        bench.model,
        bench.edit(chosen),
        before,
        answers,
        held,
        sets,
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=plan.study.seed,
    )


def _answers(bench: Bench, requests: Requests, features: Int[Tensor, " n"]) -> tuple[Bool[Tensor, " items"], Answers]:
    """Which items are right before, under the edit, and under the same edit of each matched random set."""
    plan, settings = bench.plan, bench.plan.study.intervention
    active = activity(
        requests,
        bench.lineup,
        bench.crosscoder,
        bench.model,
        settings.positions,
        batch_size=settings.batch_size,
    )
    random = activity_matched(
        features, active.density, active.contribution, bench.attribution.alive, settings.controls, plan.study.seed
    )
    edits = [bench.edit(features), *map(bench.edit, random.features)]
    scores = score(
        requests,
        bench.lineup,
        bench.upper,
        bench.crosscoder,
        bench.model,
        edits,
        batch_size=settings.batch_size,
    )
    right = correctness(scores, requests, plan.study.evaluation.metric)
    return right[0], Answers(after=right[1], controls=right[2:])


def _on_part(
    bench: Bench,
    requests: Requests,
    features: Int[Tensor, " n"],
    part: Int[Tensor, " part"],
    before: Bool[Tensor, " items"],
) -> Answers:
    """Answers on some of the items; on the others everything stays as before."""
    controls = bench.plan.study.intervention.controls
    answers = Answers(after=before.clone(), controls=before.repeat(controls, 1))
    if len(part) and len(features):
        _, found = _answers(bench, requests.select(part), features)
        answers.after[part] = found.after
        answers.controls[:, part] = found.controls
    return answers


def _sampled(count: int, most: int | None, seed: int) -> Int[Tensor, " items"]:
    if most is None or most >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def _within(items: Int[Tensor, " items"], wanted: Int[Tensor, " wanted"]) -> Int[Tensor, " positions"]:
    """Positions among `items` of those that are wanted."""
    return torch.isin(items, wanted).nonzero().flatten()
