"""What the crosscoders cost: one harvest for all, their steps side by side, and the measurement of their fit."""

from dataclasses import replace
from math import ceil

from featdiff.config.study import BatchTopK
from featdiff.costs.costs import FLOAT, CrosscoderSize, coding, crosscoder_training, exchange, forward
from featdiff.costs.estimate_inputs import Cost, Ground, fullest
from featdiff.costs.hardware import Work
from featdiff.run.plan import CrosscoderPlan

CORPUS_BYTES = 9
"""In the host's memory, per token: as it was read, packed, and the starts of documents."""
HELD_OUT_BYTES = 5
"""On the disk, per token: its id, and whether it starts a document."""
LINE_BYTES = 250
"""Of metrics.jsonl."""
CHECKPOINTS = 3
"""On the disk at most: a new one is whole before the older of two goes."""


def train(ground: Ground) -> Cost:
    """Harvest, training of every crosscoder, and their fit on held-out tokens."""
    study, crosscoders = ground.plan.study, ground.plan.crosscoders
    sizes = [ground.size(one) for one in crosscoders.values()]
    batch, held_out = study.training.batch_size, study.corpus.held_out_tokens
    steps = study.training.epochs * ceil(study.corpus.tokens / batch)
    training = [work for one in crosscoders.values() for work in _training(ground, one, steps)]
    measured = _measured(ground, ground.harvested, tuple(crosscoders), held_out)
    carried = batch * FLOAT * len(ground.harvested) * ground.model.shape.d_model
    statistics = sum(FLOAT * (size.features + size.width) for size in sizes)
    return Cost(
        parts={"harvest": (_harvest(ground),), "crosscoders": training, "fit on held-out text": measured},
        memory=fullest(while_training(ground), while_measuring(ground)),
        stays=sum(size.file_bytes for size in sizes)
        + statistics
        + HELD_OUT_BYTES * held_out
        + LINE_BYTES * len(sizes) * steps / study.training.log_every
        + streams_on_disk(ground),
        passing=CHECKPOINTS * (sum(size.checkpoint_bytes for size in sizes) + carried),
    )


def quality(ground: Ground) -> Cost:
    """Fit of the crosscoders over whole models, on the prompts of the tasks, as far as they fit the buffer."""
    plan = ground.plan
    names = tuple(name for name in plan.lineups if set(plan.crosscoders[name].models) <= set(plan.models))
    tokens = ground.assumed.item_tokens * sum(ground.items(task) for task in plan.study.evaluation.tasks)
    memory = {
        "models up to the tap": ground.below(plan.models),
        "crosscoders": sum(ground.size(plan.crosscoders[name]).file_bytes for name in names),
        **ground.splicing_memory(
            plan.study.intervention.batch_size * ground.assumed.item_tokens, ground.assumed.item_tokens
        ),
    }
    return Cost({"fit": _measured(ground, plan.models, names, min(tokens, ground.room(plan.models)))}, memory)


def streams_on_disk(ground: Ground) -> float:
    """Bytes of the cache of residual streams, where the study keeps one: of every model, in the model's precision."""
    study, model = ground.plan.study, ground.model
    if study.activations.cache is None:
        return 0.0
    return float(study.corpus.tokens * ground.distinct(ground.harvested) * model.shape.d_model * model.value)


def while_training(ground: Ground) -> dict[str, float]:
    """Memory while crosscoders learn from the stream."""
    sizes = [_part(ground.size(one), ground.shards) for one in ground.plan.crosscoders.values()]
    study, names, batch = ground.plan.study, ground.harvested, ground.plan.study.training.batch_size
    in_pass, stream = _tokens_per_pass(ground), FLOAT * len(names) * ground.model.shape.d_model
    memory = {
        "models up to the tap": ground.below(names),
        "forward pass": ground.model.forward_bytes(in_pass) + 2 * in_pass * stream,
        "shuffle buffer": (ground.buffered + batch) * stream,
        "crosscoders, gradients, moments": sum(size.training_bytes for size in sizes),
        "a step": max(size.step_bytes(ceil(batch / ground.groups)) for size in sizes),
    }
    if not ground.on_gpu:
        memory["screens"] = sum(size.screen_bytes for size in sizes)
        memory["corpus"] = CORPUS_BYTES * (study.corpus.tokens + study.corpus.held_out_tokens)
    return memory


def while_measuring(ground: Ground) -> dict[str, float]:
    """Memory while their fit is measured: whole models, and the crosscoders as trained and as read again."""
    study, sizes = ground.plan.study, [ground.size(one) for one in ground.plan.crosscoders.values()]
    tokens = min(study.activations.batch_size * study.corpus.context, study.corpus.held_out_tokens)
    held: dict[str, float] = {
        "models up to the tap": ground.below(ground.harvested),
        "crosscoders": 2 * sum(size.file_bytes for size in sizes),
    }
    features = max(size.coding_bytes(tokens) for size in sizes)
    splicing = ground.splicing_memory(tokens, study.corpus.context)
    return fullest({**held, "features of held-out tokens": features}, held | splicing)


def _harvest(ground: Ground) -> Work:
    """Every model over the corpus: once, or once an epoch where neither the buffer nor a cache holds all of it.

    Attention is counted over the whole row: a mask keeps it inside documents but saves no product.
    """
    study, names = ground.plan.study, ground.harvested
    kept = study.activations.cache is not None or ground.buffered >= study.corpus.tokens
    epochs = 1 if kept else study.training.epochs
    tokens = epochs * study.corpus.tokens + min(study.activations.scale_tokens, study.corpus.tokens)
    models = ground.distinct(names)
    calls = models * ceil(tokens / _tokens_per_pass(ground))
    return forward(ground.model, models * tokens, study.corpus.context, calls, layers=ground.layers, head=False)


def _training(ground: Ground, one: CrosscoderPlan, steps: int) -> tuple[Work, ...]:
    match one.sparsity:
        case BatchTopK(k=k):
            l0, starts_dense = float(k), False
        case _:
            l0, starts_dense = ground.assumed.l0, True
    settings, size = ground.plan.study.training, ground.size(one)
    learned = crosscoder_training(
        size, settings.batch_size, steps, l0, settings.lr, starts_dense=starts_dense, copies=ground.groups
    )
    return *learned, exchange(size, settings.batch_size, steps, ground.groups, ground.shards)


def _measured(ground: Ground, lineup: tuple[str, ...], names: tuple[str, ...], tokens: int) -> list[Work]:
    """Fit of some crosscoders on so many tokens, which a lineup reads once; on those that fit the buffer, the models of
    crosscoders that stand for themselves run on to their logits: as they are, on the reconstruction, and on the mean.
    """
    study, model, context = ground.plan.study, ground.model, ground.plan.study.corpus.context
    models, spliced = ground.distinct(lineup), min(tokens, ground.room(lineup))
    in_pass = study.activations.batch_size * context
    calls, calls_above = tokens / in_pass, spliced / ground.spliced_at_once(in_pass, context)
    work = [forward(model, models * tokens, context, models * calls, layers=ground.layers, head=False)]
    for name in names:
        one = ground.plan.crosscoders[name]
        work.append(coding(ground.size(one), tokens + spliced if name in ground.plan.lineups else tokens))
        if name not in ground.plan.lineups:
            continue
        passes, above = 3 * len(one.models), model.shape.layers - ground.layers
        work.append(forward(model, passes * spliced, context, passes * calls_above, layers=above))
    return work


def _part(size: CrosscoderSize, shards: int) -> CrosscoderSize:
    """What one device holds of a crosscoder whose features are divided."""
    return replace(size, features=ceil(size.features / shards))


def _tokens_per_pass(ground: Ground) -> int:
    """Tokens that a model harvests in one call."""
    study = ground.plan.study
    return study.corpus.context * min(study.activations.batch_size, ground.buffered // study.corpus.context)
