"""Where the crosscoders of one layer are put to the test: their models up to the tap, and the tasks.

What they share is read once: the prompts' ends, the requests, a whole model. Then each crosscoder chooses features by
the study's rule and score from the same critical items, and its features are edited as the study edits its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.activations.stream import collect
from featdiff.analyses.intervention.compute import claim_of, edited_items, effect_of
from featdiff.analyses.selection.compute import mean_rate, selections, task_scores
from featdiff.attribution.matching import Matching, match_codes
from featdiff.attribution.rank_overlap import depth_of
from featdiff.attribution.stability import ScoredCrosscoder, match_scored
from featdiff.evaluation.results import Requests
from featdiff.files import Record
from featdiff.models.loading import Lineup
from featdiff.models.partial_model import UpperModel
from featdiff.run.evaluation import Residuals, choice_tasks, prompt_ends, requests_of, selecting_tasks
from featdiff.run.held_out import calibration_of, held_out_corpus
from featdiff.run.intervention_context import Bench, PlannedEdit, measured
from featdiff.run.models import load_lineup, load_whole
from featdiff.run.plan import Plan
from featdiff.run.scored import scored
from featdiff.selection.scores import Selection, rank_features
from featdiff.selection.similarity import RankedSelection


@dataclass(frozen=True, eq=False)
class Bed:
    """The models of one layer, and what they read."""

    lineup: Lineup
    requests: dict[str, Requests]
    ends: dict[str, Residuals]
    """By task of the selection: what every model holds at the end of each prompt."""

    @staticmethod
    def of(plan: Plan) -> "Bed":
        """For the crosscoders of a plan, all of which read the same models at the same layer."""
        lineup = load_lineup(plan, plan.crosscoders[plan.joint].models)
        requests = {task.name: requests_of(plan, task.name, lineup) for task in choice_tasks(plan)}
        return Bed(lineup, requests, {task: prompt_ends(plan, lineup, task) for task in selecting_tasks(plan)})


@dataclass(frozen=True, eq=False)
class Chosen:
    """What one crosscoder chooses: from all critical items, and without those held out."""

    whole: Selection
    half: Selection
    choice: RankedSelection

    def to_json(self) -> Record:
        """What a later attempt needs to go on."""
        return {
            "chosen": self.whole.chosen.tolist(),
            "without_held_out": self.half.chosen.tolist(),
            "rule": self.whole.rule,
            "per_task": self.whole.per_task,
        }


def choose(plan: Plan, bed: Bed, name: str, p: float) -> Chosen:
    """The features of one crosscoder by the study's rule and score, ranked as far as a persistence of `p` looks."""
    one = scored(plan, name)
    alive = one.attribution.alive.cpu()
    found = [task_scores(plan, one.crosscoder, residuals, task) for task, residuals in bed.ends.items()]
    whole, half = selections(plan, found, alive)
    score = torch.where(alive, whole.score, 0.0)
    best = rank_features(whole.selected, score, depth_of(p))
    best = best[(score > 0).any(dim=0)[best]]
    return Chosen(whole, half, RankedSelection(whole.chosen, best, mean_rate(found), alive))


def matched(own: tuple[Plan, str], other: tuple[Plan, str], beds: tuple[Bed, Bed], tokens: int) -> Matching:
    """The features of two crosscoders, paired by decoder direction; at different layers, by their codes."""
    (plan, name), (other_plan, other_name) = own, other
    one, two, acceptance = scored(plan, name), scored(other_plan, other_name), plan.study.stability.acceptance
    if beds[0].lineup.layers == beds[1].lineup.layers:
        return match_scored(one, two, acceptance)
    parts = _codes((plan, one, beds[0]), (other_plan, two, beds[1]), tokens)
    a, b = (torch.cat(codes)[:tokens] for codes in zip(*parts, strict=True))
    return match_codes(a, b, acceptance, alive=(one.attribution.alive.cpu(), two.attribution.alive.cpu()))


def edited(
    plan: Plan,
    bed: Bed,
    name: str,
    test: PlannedEdit,
    upper: UpperModel,
    chosen: Int[Tensor, " n"],
    half: Int[Tensor, " half"],
) -> Record:
    """One edit of one crosscoder's features over all tasks, on held-out critical items and on all items."""
    one, records = scored(plan, name), list[Record]()
    bench = Bench(plan, one.crosscoder, bed.lineup, upper, one.attribution, test.model)
    for task in choice_tasks(plan):
        items, requests = edited_items(plan, task, bed.requests[task.name])
        found = measured(bench, requests, [test.value])
        effect, _ = effect_of(bench, test, task, items, requests, found, chosen, half)
        records.append(dict(effect.to_record()))
    return {items: claim_of(plan, test, records, items) for items in ("held_out", "all")}


def whole_model(plan: Plan, bed: Bed, model: str) -> UpperModel:
    """A whole model whose blocks above the tap read what was edited."""
    return UpperModel(load_whole(plan, plan.paths[model]), bed.lineup.layers)


def _codes(
    own: tuple[Plan, ScoredCrosscoder, Bed], other: tuple[Plan, ScoredCrosscoder, Bed], tokens: int
) -> Iterator[tuple[Float[Tensor, "tokens features"], Float[Tensor, "tokens others"]]]:
    """Both crosscoders' codes of the same held-out tokens, those left out that are sinks at either layer."""
    sides = []
    for plan, one, bed in (own, other):
        calibration = calibration_of(plan, bed.lineup.names)
        every = replace(calibration, largest_norm=torch.full_like(calibration.largest_norm, torch.inf))
        batches = collect(bed.lineup, held_out_corpus(plan), every, plan.study.activations)
        sides.append((one.crosscoder, calibration.largest_norm, batches))
    left = tokens
    for pair in zip(*(batches for *_, batches in sides), strict=True):
        kept = [
            (batch.values.norm(dim=-1).cpu() <= largest).all(dim=-1)
            for batch, (_, largest, _) in zip(pair, sides, strict=True)
        ]
        keep = (kept[0] & kept[1]).to(pair[0].values.device)
        with torch.no_grad():
            a, b = (one.encode(batch.values[keep]).cpu() for batch, (one, *_) in zip(pair, sides, strict=True))
        yield a, b
        left -= len(a)
        if left <= 0:
            return
