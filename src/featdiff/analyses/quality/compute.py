"""`quality`: how well the crosscoders explain the models on the evaluation prompts, where causal claims are made."""

from pathlib import Path

import torch

from featdiff.activations.stream import Activations
from featdiff.crosscoder import Crosscoder
from featdiff.crosscoder.metrics import NO_LABEL, measure
from featdiff.evaluation.batches import padded
from featdiff.evaluation.results import Requests
from featdiff.files import write_json
from featdiff.models.loading import Lineup
from featdiff.run.evaluation import choice_tasks, longest_read, requests_of
from featdiff.run.held_out import calibration_of
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan
from featdiff.run.scored import held_out_statistics
from featdiff.run.splice import Harvested, Part, harvest, recovered


def quality(plan: Plan, folder: Path) -> None:
    """Write `<lineup>.json` for every lineup that aligns tuned models with the base (not the checkpoints)."""
    names = [name for name in plan.lineups if set(plan.crosscoders[name].models) <= set(plan.models)]
    place = plan.run.path("crosscoders")
    crosscoders = {name: Crosscoder.load(place / name).to(plan.study.lineup.device) for name in names}
    models = tuple(model for model in plan.models if any(model in one.models for one in crosscoders.values()))
    lineup = load_lineup(plan, models)
    calibration = calibration_of(plan, lineup.names)
    longest = longest_read(lineup)
    parts = [
        part for task in choice_tasks(plan) for part in _parts(plan, requests_of(plan, task.name, lineup), longest)
    ]
    harvested = harvest(plan, lineup, calibration, parts)
    for name, crosscoder in crosscoders.items():
        mean = held_out_statistics(plan, name)["mean"]
        found = measure(crosscoder, (_activations(lineup, one) for one in harvested))
        write_json(
            folder / f"{name}.json",
            {
                "variance_explained": dict(zip(found.models, found.variance_explained.tolist(), strict=True)),
                "l0": found.l0,
                "dead_share": found.dead_share,
                "tokens": found.tokens,
                **recovered(plan, lineup, crosscoder, mean, harvested),
            },
        )


def _parts(plan: Plan, requests: Requests, longest: int) -> list[Part]:
    """Every item once, its prompt with the right answer, in padded batches; the first position is left alone.

    Unlike a model that scores the answer, all read its last token too; a row that is then too long loses its first.
    """
    right = requests.choice_of == requests.target[requests.sample_of]
    pairs = [(requests.context_ids[i], requests.continuation_ids[i]) for i in right.nonzero().flatten().tolist()]
    rows = [[*context, *answer][-longest:] for context, answer in pairs]
    rows.sort(key=len)
    size = plan.study.intervention.batch_size
    return [_padded_part(rows[start : start + size]) for start in range(0, len(rows), size)]


def _padded_part(rows: list[list[int]]) -> Part:
    input_ids, attention_mask = padded(rows)
    labels = torch.full_like(input_ids, NO_LABEL)
    labels[:, :-1] = input_ids[:, 1:].masked_fill(attention_mask[:, 1:] == 0, NO_LABEL)
    replaceable = attention_mask.bool()
    replaceable[:, 0] = False
    return Part(input_ids, attention_mask, None, labels, replaceable)


def _activations(lineup: Lineup, harvested: Harvested) -> Activations:
    keep = harvested.keep
    return Activations(lineup.names, harvested.residuals[keep], harvested.part.input_ids[keep])
