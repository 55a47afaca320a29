"""`drift`: how far every tuned model and checkpoint has moved from the base, and its tail at less of the same change.

A tail is counted by the swap reading of the tuned model's own pair crosscoder (`attribution.swap`): checkpoints and
interpolations take the tuned model's place. So all counts of one tuned model are over one dictionary, and no crosscoder
has to be trained for every interpolation. A feature that only an interpolation had would be missed. The control of
drift (SFT on RL's own right answers) has no crosscoder of its own, and is read in every tuned model's place.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from featdiff.analyses.drift.matched_kl import Moved, equal_drift
from featdiff.analyses.drift.tails import Tails
from featdiff.config.study import BASE
from featdiff.data.corpus import build_corpus
from featdiff.evaluation.batches import padded
from featdiff.evaluation.results import Requests
from featdiff.files import Record, write_json
from featdiff.models.divergence import (
    Predicted,
    Text,
    activation_change,
    divergence_from,
    interpolate,
    matching_alpha,
    mean_divergence,
    predictions,
    weight_change,
)
from featdiff.models.loading import PreTrainedModel
from featdiff.models.logging import quiet_transformers
from featdiff.progress import Progress
from featdiff.run.evaluation import choice_tasks, requests_of
from featdiff.run.models import load_lineup, load_whole
from featdiff.run.plan import Plan


@dataclass(frozen=True)
class _Between:
    """A model between the base and a tuned one: where it lies, and what share of the whole change it is, if mixed."""

    name: str
    path: str
    kind: str
    alpha: float | None = None


def drift(plan: Plan, folder: Path) -> None:
    """Write `drift.json`, the interpolations as model folders `<tuned model>/<name>/`, and what was evaluated."""
    base, neutral = load_whole(plan, plan.paths[BASE]), list(_neutral_texts(plan))
    tasks = list(predictions(base, _task_texts(plan)))
    paths = {name: plan.trail(name)[name] for name in plan.drifting}
    finals = {name: divergence_from(tasks, load_whole(plan, path)) for name, path in paths.items()}
    least = min(finals, key=lambda name: finals[name])
    rows, moved, tails = list[Record](), list[Moved](), Tails(plan)
    for name in plan.drifting:
        wanted = finals[least] if finals[name] > finals[least] else None
        with Progress(f"drift of {name}", total=_models(plan, name, wanted), unit="model") as progress:
            for one in _along(plan, folder, name, base, tasks, wanted):
                rows.append(_row(plan, name, one, base, tasks, neutral, tails))
                moved.append(Moved(name, one.name, one.path, one.kind, rows[-1]["kl_task"]))
                progress.advance()
    equal = equal_drift(plan, folder / "evaluation", moved, least, tails)
    write_json(folder / "drift.json", {"least": least, "task_divergence": finals, "rows": rows, "equal": equal})


def _models(plan: Plan, name: str, wanted: float | None) -> int:
    return len(set(plan.trail(name).values())) + len(plan.study.drift.alphas) + (wanted is not None)


def _along(
    plan: Plan, folder: Path, name: str, base: PreTrainedModel, tasks: list[Predicted], wanted: float | None
) -> Iterator[_Between]:
    """Checkpoints, the model itself, interpolations, and the one whose KL is as wanted."""
    trail = plan.trail(name)
    for checkpoint, path in trail.items():
        if path != trail[name]:
            yield _Between(checkpoint, path, "checkpoint")
    yield _Between(name, trail[name], "model", 1.0)
    whole = load_whole(plan, trail[name])
    mixed = deepcopy(whole)

    def divergence(alpha: float) -> float:
        interpolate(mixed, base, whole, alpha)
        return divergence_from(tasks, mixed)

    save = _saving(plan, folder / name, lambda alpha: interpolate(mixed, base, whole, alpha), mixed)
    for alpha in plan.study.drift.alphas:
        yield _Between(f"{name} x {alpha:g}", save(f"alpha-{alpha:g}", alpha), "interpolation", alpha)
    if wanted is not None:
        alpha = matching_alpha(divergence, wanted)
        yield _Between(f"{name} matched", save("matched", alpha), "matched", alpha)


def _saving(
    plan: Plan, folder: Path, mix: Callable[[float], None], mixed: PreTrainedModel
) -> Callable[[str, float], str]:
    tokenizer = load_lineup(plan, (BASE,)).tokenizer

    def save(name: str, alpha: float) -> str:
        mix(alpha)
        with quiet_transformers():
            mixed.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
        return str(folder / name)

    return save


def _row(
    plan: Plan,
    name: str,
    between: _Between,
    base: PreTrainedModel,
    tasks: list[Predicted],
    neutral: list[Text],
    tails: Tails,
) -> Record:
    model = load_whole(plan, between.path)
    described = {key: value for key, value in asdict(between).items() if key != "path"}
    crossed = () if name in plan.tuned else tails.places
    return {
        "tuned": name,
        **described,
        "kl_task": divergence_from(tasks, model),
        "kl_neutral": mean_divergence(base, model, neutral),
        "weights": weight_change(base, model),
        "activations": activation_change(base, model, neutral).tolist(),
        "tails": tails.counts(name, between.path),
        "crossed": {place: tails.counts(place, between.path) for place in crossed},
    }


# ------------------------------------------------------------------ texts


def _task_texts(plan: Plan) -> Iterator[Text]:
    """Items with their right answers, whose tokens are what is predicted."""
    tasks = choice_tasks(plan)
    trained = [task for task in tasks if task.role == "train"] or tasks
    if not trained:
        raise ValueError("drift is measured on multiple-choice tasks; give evaluation.tasks at least one")
    lineup = load_lineup(plan, (BASE,))
    for task in trained:
        yield from _answers(plan, requests_of(plan, task.name, lineup))


def _answers(plan: Plan, requests: Requests) -> Iterator[Text]:
    right = requests.choice_of == requests.target[requests.sample_of]
    chosen = right.nonzero().flatten().tolist()[: plan.study.drift.items]
    pairs = sorted(
        ((requests.context_ids[i], requests.continuation_ids[i]) for i in chosen), key=lambda pair: len(pair[0])
    )
    for start in range(0, len(pairs), size := plan.study.drift.batch_size):
        batch = pairs[start : start + size]
        input_ids, attention_mask = padded(
            [[*context, *answer[:-1]] for context, answer in batch]
        )  # the last is not read
        compared = torch.zeros_like(input_ids, dtype=torch.bool)
        for row, (context, answer) in enumerate(batch):
            last = len(context) - 1  # the position that predicts the first token of the answer
            compared[row, max(0, last) : len(context) + len(answer) - 1] = True
        yield Text(input_ids, attention_mask, None, compared)


def _neutral_texts(plan: Plan) -> Iterator[Text]:
    """Rows of one source of the corpus; the last position of a document predicts nothing."""
    study, wanted = plan.study, plan.study.drift.neutral
    found = [source for source in study.corpus.sources if wanted in (None, source.path)]
    if not found:
        paths = ", ".join(source.path for source in study.corpus.sources)
        raise ValueError(f"drift.neutral is {wanted}, which is no source of the corpus; give one of {paths}")
    source = found[-1].model_copy(update={"share": 1.0, "path": plan.located(found[-1].path)})
    # Where the source is short, both halves shrink alike.
    sizes = dict.fromkeys(("tokens", "held_out_tokens"), study.drift.neutral_tokens)
    settings = study.corpus.model_copy(update={"sources": (source,), **sizes})
    corpus, _ = build_corpus(settings, load_lineup(plan, (BASE,)).tokenizer, seed=study.seed)
    for rows in torch.arange(len(corpus.input_ids)).split(study.drift.batch_size):
        part = corpus.select(rows)
        compared = torch.zeros_like(part.document_start)
        compared[:, :-1] = ~part.document_start[:, 1:]
        yield Text(part.input_ids.long(), None, part.position_ids, compared)
