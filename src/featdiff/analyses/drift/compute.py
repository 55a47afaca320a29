"""How far every tuned model and checkpoint has moved from the base, and its tail at less of the same change.

A tail is counted by the swap reading of the tuned model's own pair crosscoder (`attribution.swap`): checkpoints and
interpolations take the tuned model's place. So all counts of one tuned model are over one dictionary, and no crosscoder
has to be trained for every interpolation. A feature that only an interpolation had would be missed. The control of
drift (SFT on RL's own right answers) has no crosscoder of its own, and is read in every tuned model's place.

Equal drift is the KL of the model that moved least: by mixing with the base, and by the checkpoint of nearest KL. Two
questions are asked there (`attribution.tail_comparison`): whether one tuned model still has more specific features than
another, each read through its own crosscoder; and whether SFT on RL's own right answers makes fewer than SFT on the
teacher's, read through SFT's crosscoder, which favours SFT, and through RL's, which favours what imitates RL.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from featdiff.analyses.drift.result import (
    Drift,
    EqualDrift,
    EqualModel,
    Estimate,
    Kind,
    Matching,
    MeanAccuracy,
    ModelDrift,
    Question,
    Reading,
)
from featdiff.attribution.tail_comparison import (
    Tail,
    TailDifference,
    paired_tails,
    separate_tails,
    turning_point,
    unanimous,
)
from featdiff.config.evidence import DriftSettings
from featdiff.data.corpus import Corpus
from featdiff.evaluation.batches import padded
from featdiff.evaluation.repeated_sampling import gain_over, share_interval
from featdiff.evaluation.results import Requests, TaskResult
from featdiff.models.divergence import (
    Predicted,
    Text,
    activation_change,
    divergence_from,
    interpolate,
    matching_alpha,
    mean_divergence,
    weight_change,
)
from featdiff.models.loading import PreTrainedModel
from featdiff.models.logging import quiet_transformers
from featdiff.models.tokenizer import Tokenizer
from featdiff.progress import Progress
from featdiff.stats import Interval, mean_of

Features = Float[Tensor, " features"]
Results = Sequence[TaskResult]


class Tails:
    """Tails of models in the place of tuned ones that have a crosscoder of themselves and the base.

    Args:
        alive: by tuned model, which features of that crosscoder are alive.
        specificity: of a tuned model's features with the model in a folder in its place; asked once for each two.
        cuts: above which features are counted.
    """

    def __init__(
        self,
        alive: Mapping[str, Bool[Tensor, " features"]],
        specificity: Callable[[str, str], Features],
        cuts: Sequence[float],
    ) -> None:
        self.alive, self.specificity, self.cuts = alive, cache(specificity), cuts

    def tail(self, place: str, path: str, cut: float) -> Tail:
        """Features above one cut, with the model at `path` in the place of a tuned model."""
        return Tail.of(self.specificity(place, path), self.alive[place], cut)

    def counts(self, place: str, path: str) -> dict[str, int]:
        """Features above each cut, and under "measured" of how many."""
        specific = {f"{cut:g}": self.tail(place, path, cut).specific for cut in self.cuts}
        return specific | {"measured": self.tail(place, path, 1.0).measured}


@dataclass(frozen=True, eq=False)
class Inputs:
    """What drift is measured from."""

    base: PreTrainedModel
    tokenizer: Tokenizer
    tasks: list[Predicted]
    """What the base predicts on right answers."""
    neutral: list[Text]
    load: Callable[[str], PreTrainedModel]
    """Loads the model in a folder."""
    tails: Tails
    results: Callable[[str, str], Results]
    """Task by task those of a model, by its name and folder; of the same tasks and items for every model."""
    base_results: Results
    studied: str
    """The tuned model that the others are compared with."""
    control: str | None
    alphas: tuple[float, ...]
    """Interpolations."""
    confidence: float

    def kl_task(self, model: PreTrainedModel) -> float:
        """KL(base | model) per predicted token of the tasks, in nats."""
        return divergence_from(self.tasks, model)


@dataclass(frozen=True)
class _Between:
    """A model between the base and a tuned one, and what share of the whole change it is, if mixed."""

    name: str
    path: str
    kind: Kind
    alpha: float | None = None


def measure_drift(inputs: Inputs, trails: Mapping[str, Mapping[str, str]], place: Path) -> Drift:
    """Measure all models between the base and the tuned ones, and compare them at equal drift.

    Args:
        inputs: the base, the texts, and how models are read.
        trails: by tuned model (the control too), folders of its checkpoints by name, and last of the model itself.
        place: folder for the interpolations, model folders `<tuned model>/<name>/`.
    """
    finals = {name: inputs.kl_task(inputs.load(trail[name])) for name, trail in trails.items()}
    least = min(finals, key=lambda name: finals[name])
    rows, paths = list[ModelDrift](), dict[str, str]()
    for name, trail in trails.items():
        wanted = finals[least] if finals[name] > finals[least] else None
        total = len(set(trail.values())) + len(inputs.alphas) + (wanted is not None)
        with Progress(f"drift of {name}", total=total, unit="model") as progress:
            for one in _along(inputs, name, trail, wanted, place / name):
                rows.append(_row(inputs, name, one))
                paths[one.name] = one.path
                progress.advance()
    return Drift(least, finals, tuple(rows), equal_drift(inputs, rows, paths, least))


def _along(
    inputs: Inputs, name: str, trail: Mapping[str, str], wanted: float | None, place: Path
) -> Iterator[_Between]:
    """Checkpoints, the model itself, interpolations, and the one whose KL is as wanted."""
    for checkpoint, path in trail.items():
        if path != trail[name]:
            yield _Between(checkpoint, path, "checkpoint")
    yield _Between(name, trail[name], "model", 1.0)
    whole = inputs.load(trail[name])
    mixed = deepcopy(whole)

    def divergence(alpha: float) -> float:
        interpolate(mixed, inputs.base, whole, alpha)
        return inputs.kl_task(mixed)

    def save(folder: Path, alpha: float) -> str:
        interpolate(mixed, inputs.base, whole, alpha)
        with quiet_transformers():
            mixed.save_pretrained(folder)
            inputs.tokenizer.save_pretrained(folder)
        return str(folder)

    for alpha in inputs.alphas:
        yield _Between(f"{name} x {alpha:g}", save(place / f"alpha-{alpha:g}", alpha), "interpolation", alpha)
    if wanted is not None:
        alpha = matching_alpha(divergence, wanted)
        yield _Between(f"{name} matched", save(place / "matched", alpha), "matched", alpha)


def _row(inputs: Inputs, tuned: str, one: _Between) -> ModelDrift:
    model, base, tails = inputs.load(one.path), inputs.base, inputs.tails
    crossed = tails.alive if tuned == inputs.control else ()
    return ModelDrift(
        tuned=tuned,
        name=one.name,
        kind=one.kind,
        alpha=one.alpha,
        kl_task=inputs.kl_task(model),
        kl_neutral=mean_divergence(base, model, inputs.neutral),
        weights=weight_change(base, model),
        activations=tuple(activation_change(base, model, inputs.neutral).tolist()),
        tails=tails.counts(tuned, one.path) if tuned in tails.alive else None,
        crossed={place: tails.counts(place, one.path) for place in crossed},
    )


# ------------------------------------------------------------------ texts


def answer_texts(requests: Requests, settings: DriftSettings) -> Iterator[Text]:
    """Items of a task with their right answers, whose tokens are what is predicted."""
    right = requests.choice_of == requests.target[requests.sample_of]
    chosen: list[int] = right.nonzero().flatten().tolist()[: settings.items]
    pairs = sorted(
        ((requests.context_ids[i], requests.continuation_ids[i]) for i in chosen), key=lambda pair: len(pair[0])
    )
    for start in range(0, len(pairs), settings.batch_size):
        batch = pairs[start : start + settings.batch_size]
        read = [[*context, *answer[:-1]] for context, answer in batch]  # an answer's last token predicts nothing
        input_ids, attention_mask = padded(read)
        compared = torch.zeros_like(input_ids, dtype=torch.bool)
        for row, (context, answer) in enumerate(batch):
            last = len(context) - 1  # the position that predicts the first token of the answer
            compared[row, max(0, last) : len(context) + len(answer) - 1] = True
        yield Text(input_ids, attention_mask, None, compared)


def packed_texts(corpus: Corpus, batch_size: int) -> Iterator[Text]:
    """Rows of a corpus; the last position of a document predicts nothing."""
    for rows in torch.arange(len(corpus.input_ids)).split(batch_size):
        part = corpus.select(rows)
        compared = torch.zeros_like(part.document_start)
        compared[:, :-1] = ~part.document_start[:, 1:]
        yield Text(part.input_ids.long(), None, part.position_ids, compared)


# ------------------------------------------------------------------ equal drift


def equal_drift(inputs: Inputs, rows: Sequence[ModelDrift], paths: Mapping[str, str], least: str) -> EqualDrift:
    """All models and both questions, for the models as they were trained and at the KL of the one that moved least.

    `paths` holds the folders of the models by the names of their rows.
    """
    matched, tails = _matched(rows, least), inputs.tails
    compared: list[tuple[Matching, ModelDrift]] = [
        (matching, one) for matching, models in matched.items() for one in models.values()
    ]
    names = dict.fromkeys(one.name for _, one in compared)
    results = {name: inputs.results(name.replace(" ", "-"), paths[name]) for name in names}
    return EqualDrift(
        base=_accuracy(inputs, inputs.base_results),
        models=tuple(
            EqualModel(
                way=matching,
                of=one.tuned,
                name=one.name,
                kl_task=one.kl_task,
                accuracy=_accuracy(inputs, results[one.name]),
                tails={place: tails.counts(place, paths[one.name]) for place in tails.alive},
            )
            for matching, one in compared
        ),
        questions=tuple(
            Question(
                way=matching,
                first=first,
                second=second,
                cut=f"{min(tails.cuts):g}",
                order=unanimous(reading.order for reading in readings),
                readings=readings,
                gain=_mean_gain(results[models[second].name], results[models[first].name], inputs.confidence),
            )
            for matching, models in matched.items()
            for first, second, places in _asked(inputs, tuple(models))
            if (readings := _readings(inputs, paths[models[first].name], paths[models[second].name], places))
        ),
    )


def _matched(rows: Sequence[ModelDrift], least: str) -> dict[Matching, dict[str, ModelDrift]]:
    """The models at equal drift by either matching, and as trained; the one that moved least is itself in all."""
    whole = {one.tuned: one for one in rows if one.kind == "model"}
    mixed = {one.tuned: one for one in rows if one.kind == "matched"}

    def distance(one: ModelDrift) -> float:
        return abs(one.kl_task - whole[least].kl_task)

    trained = {
        name: [one for one in rows if one.tuned == name and one.kind in ("checkpoint", "model")] for name in whole
    }
    nearest = {name: min(models, key=distance) for name, models in trained.items()}
    return {
        "as trained": whole,
        "mixed with the base": whole | mixed,
        "nearest checkpoint": nearest | {least: whole[least]},
    }


def _accuracy(inputs: Inputs, results: Results) -> MeanAccuracy:
    """Mean over tasks, which count alike, and the gain over the base on the same items."""
    shares = [share_interval(result.shares, confidence=inputs.confidence) for result in results]
    gain = _mean_gain(inputs.base_results, results, inputs.confidence)
    items = sum(len(result.samples) for result in results)
    return MeanAccuracy(**vars(_estimate(mean_of(shares))), gain=gain, tasks=len(results), items=items)


def _mean_gain(before: Results, after: Results, confidence: float) -> Estimate:
    gains = [gain_over(*pair, confidence=confidence) for pair in zip(before, after, strict=True)]
    return _estimate(mean_of(gains))


def _estimate(found: Interval) -> Estimate:
    return Estimate(None if found.value != found.value else found.value, (found.low, found.high))


def _asked(inputs: Inputs, models: Sequence[str]) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Two models, and in whose places each of them is read: whether each tuned model has more than the one that is
    studied, and whether the control has fewer than SFT, the first of the tuned models."""
    read, tuned = inputs.tails.alive.keys(), [name for name in models if name != inputs.control]
    if not inputs.tails.cuts:
        return
    for name in tuned:
        if name != inputs.studied and {name, inputs.studied} <= read:
            yield name, inputs.studied, [(name, inputs.studied)]
    if inputs.control is not None and set(tuned) <= read:
        yield inputs.control, tuned[0], [(place, place) for place in read]


def _readings(inputs: Inputs, first: str, second: str, pairs: list[tuple[str, str]]) -> tuple[Reading, ...]:
    return tuple(_reading(places, _difference(inputs, first, second, *places)) for places in pairs)


def _difference(inputs: Inputs, first: str, second: str, here: str, there: str) -> TailDifference:
    """The tails of the models in two folders, above the lowest cut, each in its place."""
    tails, cut = inputs.tails, min(inputs.tails.cuts)
    if here != there:
        pair = tails.tail(here, first, cut), tails.tail(there, second, cut)
        return separate_tails(*pair, confidence=inputs.confidence)
    pair = tails.specificity(here, first), tails.specificity(here, second)
    return paired_tails(*pair, tails.alive[here], cut, confidence=inputs.confidence)


def _reading(places: tuple[str, str], found: TailDifference) -> Reading:
    only = found.only_first, found.only_second
    return Reading(
        places=places,
        first=(found.first.specific, found.first.measured),
        second=(found.second.specific, found.second.measured),
        only=None if only[0] is None or only[1] is None else (only[0], only[1]),
        difference=_estimate(found.difference),
        order=found.order,
        turns_at=turning_point(found),
    )
