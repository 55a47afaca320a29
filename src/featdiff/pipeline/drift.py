"""`drift`: how far every tuned model and checkpoint has moved from the base, and its tail at less of the same change.

A tail is counted by the swap reading of the tuned model's own pair crosscoder (`attribution.swap`): checkpoints and
interpolations take the tuned model's place. So all counts of one tuned model are over one dictionary, and no crosscoder
has to be trained for every interpolation. A feature that only an interpolation had would be missed.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from featdiff.activations.corpus import build_corpus
from featdiff.activations.drift import (
    Text,
    activation_change,
    interpolate,
    matching_alpha,
    mean_divergence,
    weight_change,
)
from featdiff.activations.models import Lineup, PreTrainedModel
from featdiff.activations.stream import Calibration, collect
from featdiff.attribution.swap import swap_specificity
from featdiff.causal.batches import padded
from featdiff.causal.records import Requests
from featdiff.crosscoder import Crosscoder
from featdiff.pipeline.attribute import attribution_of
from featdiff.pipeline.evaluate import choice_tasks, requests_of
from featdiff.pipeline.held_out import calibration_of, held_out_corpus
from featdiff.pipeline.lineup import load_lineup, load_whole
from featdiff.pipeline.plan import Plan
from featdiff.progress import Progress
from featdiff.runs import write_json
from featdiff.study import BASE

COMPARED = "compared"
"""Name of the model that takes the tuned model's place."""


@dataclass(frozen=True)
class _Moved:
    """A model between the base and a tuned one: where it lies, and what share of the whole change it is, if mixed."""

    name: str
    path: str
    kind: str
    alpha: float | None = None


def drift(plan: Plan, folder: Path) -> None:
    """Write `drift.json`, and the interpolations as model folders `<tuned model>/<name>/`."""
    base, tasks, neutral = load_whole(plan, plan.paths[BASE]), list(_task_texts(plan)), list(_neutral_texts(plan))
    finals = {tuned: mean_divergence(base, load_whole(plan, plan.paths[tuned]), tasks) for tuned in plan.tuned}
    least = min(finals, key=lambda tuned: finals[tuned])
    rows = []
    for tuned in plan.tuned:
        wanted = finals[least] if finals[tuned] > finals[least] else None
        with Progress(f"drift of {tuned}", total=_models(plan, tuned, wanted), unit="model") as progress:
            for moved in _along(plan, folder, tuned, base, tasks, wanted):
                rows.append(_row(plan, tuned, moved, base, tasks, neutral))
                progress.advance()
    write_json(folder / "drift.json", {"least": least, "task_divergence": finals, "rows": rows})


def _models(plan: Plan, tuned: str, wanted: float | None) -> int:
    return max(1, len(plan.checkpoints[tuned])) + len(plan.study.drift.alphas) + (wanted is not None)


def _along(
    plan: Plan, folder: Path, tuned: str, base: PreTrainedModel, tasks: list[Text], wanted: float | None
) -> Iterator[_Moved]:
    """Checkpoints, the model itself, interpolations, and the one whose KL is as wanted."""
    for checkpoint in plan.checkpoints[tuned]:
        if plan.paths[checkpoint] != plan.paths[tuned]:
            yield _Moved(checkpoint, plan.paths[checkpoint], "checkpoint")
    yield _Moved(tuned, plan.paths[tuned], "model", 1.0)
    whole = load_whole(plan, plan.paths[tuned])
    mixed = deepcopy(whole)

    def divergence(alpha: float) -> float:
        interpolate(mixed, base, whole, alpha)
        return mean_divergence(base, mixed, tasks)

    save = _saving(plan, folder / tuned, lambda alpha: interpolate(mixed, base, whole, alpha), mixed)
    for alpha in plan.study.drift.alphas:
        yield _Moved(f"{tuned} x {alpha:g}", save(f"alpha-{alpha:g}", alpha), "interpolation", alpha)
    if wanted is not None:
        alpha = matching_alpha(divergence, wanted)
        yield _Moved(f"{tuned} matched", save("matched", alpha), "matched", alpha)


def _saving(
    plan: Plan, folder: Path, mix: Callable[[float], None], mixed: PreTrainedModel
) -> Callable[[str, float], str]:
    tokenizer = load_lineup(plan, (BASE,)).tokenizer

    def save(name: str, alpha: float) -> str:
        mix(alpha)
        mixed.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        return str(folder / name)

    return save


def _row(
    plan: Plan, tuned: str, moved: _Moved, base: PreTrainedModel, tasks: list[Text], neutral: list[Text]
) -> dict[str, object]:
    model = load_whole(plan, moved.path)
    described = {key: value for key, value in asdict(moved).items() if key != "path"}
    return {
        "tuned": tuned,
        **described,
        "kl_task": mean_divergence(base, model, tasks),
        "kl_neutral": mean_divergence(base, model, neutral),
        "weights": weight_change(base, model),
        "activations": activation_change(base, model, neutral).tolist(),
        "tails": _tails(plan, tuned, moved.path),
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


# ------------------------------------------------------------------ tails


def _tails(plan: Plan, tuned: str, path: str) -> dict[str, int] | None:
    """Features above each cut, and how many were measured, with the model at `path` in the tuned model's place."""
    pair = plan.pair(tuned)
    if pair is None:
        return None
    study = plan.study
    specificity = swap_specificity(
        [Crosscoder.load(plan.run.path("crosscoders", pair)).to(study.lineup.device)],
        _streams(plan, tuned, path),
        [COMPARED],
        p=study.attribution.norm_p,
        space=study.attribution.space,
        min_active=study.drift.min_active,
    )[0][0]
    alive = attribution_of(plan, pair).alive.cpu()
    counts = {f"{cut:g}": int((alive & (specificity > cut)).sum()) for cut in study.attribution.tails}
    return counts | {"measured": int((alive & ~specificity.isnan()).sum())}


def _streams(plan: Plan, tuned: str, path: str):
    """Held-out activations of the base, the tuned model, and the model at `path`, whose sinks are the tuned one's."""
    settings = plan.study.lineup
    lineup = Lineup.load(
        {BASE: plan.paths[BASE], tuned: plan.paths[tuned], COMPARED: path},
        layer=settings.layer,
        dtype=settings.dtype,
        device=settings.device,
        turns=settings.turns,
        attention=settings.attention,
        trust_remote_code=settings.trust_remote_code,
    )
    known = calibration_of(plan, (BASE, tuned))
    columns = [0, 1, 1]
    calibration = Calibration(lineup.names, known.largest_norm[columns], known.scale[columns])
    return collect(lineup, held_out_corpus(plan), calibration, plan.study.activations, plan.study.drift.tokens)
