"""What training the crosscoders costs: one harvest for all, their steps, and the measurement of their fit.

dense step     10 tokens features width FLOPs: a product in the encoder, one in the decoder, and three backward, since
               nothing flows on into the models
sparse step    2 tokens features width FLOPs in the encoder; the rows of the active features are read `GATHERS` times
Adam           28 bytes per parameter (weight and two moments read and written, gradient read); 24 in the sparse step,
               where most features have no gradient
"""

from math import ceil

from featdiff.config.crosscoder import BatchTopK
from featdiff.costs.estimate import ADAM_BYTES, Cost, CostInputs, Part
from featdiff.crosscoder.kernels.borders import CPU_COMPACT, CPU_SCREENED, GPU_SCREENED
from featdiff.crosscoder.sizes import FLOAT, CrosscoderSize
from featdiff.run.plan import CrosscoderPlan
from featdiff.run.sizes import fullest

ADAM_SPARSE, GATHERS = 24, 4
DENSE_PART = 0.5
"""An L1 run starts dense: until the learning rates of its steps sum to this (0.25 to 0.7 was seen)."""
HELD_OUT_BYTES = 5
"""On the disk, per token: its id, and whether it starts a document."""
LINE_BYTES = 250
"""Of metrics.jsonl."""
CHECKPOINTS = 3
"""On the disk at most: a new one is whole before the older of two goes."""


def cost(inputs: CostInputs) -> Cost:
    """Harvest, training of every crosscoder, and their fit on held-out tokens."""
    study, sizes, devices = inputs.plan.study, inputs.sizes, inputs.devices
    batch, held_out = study.training.batch_size, study.corpus.held_out_tokens
    steps = study.training.epochs * ceil(study.corpus.tokens / batch)
    trained = (_training(inputs, one, steps) for one in inputs.plan.crosscoders.values())
    carried = batch * FLOAT * len(inputs.plan.harvested) * inputs.shape.d_model
    statistics = sum(FLOAT * (size.features + size.width) for size in sizes)
    lines = len(sizes) * steps / study.training.log_every
    fit = inputs.fit(inputs.plan.harvested, tuple(inputs.plan.crosscoders), held_out)
    return Cost(
        parts={
            "harvest": harvest(inputs).shared(devices) + inputs.loading_below(inputs.plan.harvested),
            "crosscoders": sum(trained, Part()).shared(devices),
            "fit on held-out text": fit.shared(devices),
        },
        memory=fullest(inputs.while_training(), inputs.while_measuring()),
        stays=sum(size.file_bytes for size in sizes)
        + statistics
        + HELD_OUT_BYTES * held_out
        + LINE_BYTES * lines
        + cache_bytes(inputs),
        passing=CHECKPOINTS * (sum(size.checkpoint_bytes for size in sizes) + carried),
    )


def harvest(inputs: CostInputs) -> Part:
    """Every model over the corpus: once, or once an epoch where neither the buffer nor a cache holds all of it.

    Attention is counted over the whole row: a mask keeps it inside documents but saves no product.
    """
    study, models = inputs.plan.study, inputs.distinct(inputs.plan.harvested)
    kept = study.activations.cache is not None or inputs.buffered >= study.corpus.tokens
    epochs = 1 if kept else study.training.epochs
    tokens = epochs * study.corpus.tokens + min(study.activations.scale_tokens, study.corpus.tokens)
    return inputs.below_tap(models * tokens, study.corpus.context, models * ceil(tokens / inputs.tokens_per_pass))


def cache_bytes(inputs: CostInputs) -> float:
    """Bytes of the cache of residual streams, where the study keeps one: of every model, in the model's precision."""
    study = inputs.plan.study
    if study.activations.cache is None:
        return 0.0
    return float(study.corpus.tokens * inputs.distinct(inputs.plan.harvested) * inputs.shape.d_model * inputs.value)


def dense_steps(inputs: CostInputs, size: CrosscoderSize, tokens: int, steps: float) -> Part:
    """So many dense steps; every group of devices holds all features and applies Adam to them."""
    products = 10.0 * tokens * size.features * size.width + 6.0 * tokens * size.hidden * (size.width + size.features)
    adam = inputs.work(moved=inputs.groups * ADAM_BYTES * size.parameters * steps)
    return inputs.work(products * steps, of="crosscoder") + adam + _overhead(inputs, steps)


def sparse_steps(inputs: CostInputs, size: CrosscoderSize, tokens: int, steps: float, l0: float) -> Part:
    """So many sparse steps with `l0` active features per token. While few are, the encoder screens in low precision
    (int8 on a CPU, which is faster than the bfloat16 that counts here)."""
    encoder, active = 2.0 * tokens * size.features * size.width * steps, tokens * l0 * size.width * steps
    return (
        inputs.work(encoder, of="crosscoder", bf16=l0 < borders(inputs.on_gpu)[0] * size.features)
        + inputs.work(8 * active, moved=GATHERS * FLOAT * active, of="crosscoder")
        + inputs.work(moved=inputs.groups * ADAM_SPARSE * size.parameters * steps)
        + _overhead(inputs, steps)
    )


def borders(on_gpu: bool) -> tuple[float, float]:
    """Shares of active features below which a step screens in low precision, and below which it is sparse."""
    return (GPU_SCREENED, GPU_SCREENED) if on_gpu else (CPU_SCREENED, CPU_COMPACT)


def exchange(inputs: CostInputs, size: CrosscoderSize, tokens: int, steps: float) -> Part:
    """What devices send each other: their groups divide the tokens, and inside a group its shards the features.

    A sum over n devices takes each of them 2 (n - 1) / n times its length: gradients over the groups, reconstructions
    over the shards.
    """
    groups, shards = inputs.groups, inputs.shards
    gradients = size.parameters / shards * (groups - 1) / groups
    reconstructions = tokens / groups * size.width * (shards - 1) / shards
    return inputs.work(sent=2 * FLOAT * (gradients + reconstructions) * groups * shards * steps)


def _overhead(inputs: CostInputs, steps: float) -> Part:
    """Seconds that steps take at least, on every device. On a CPU each crosscoder learns in a thread of its own."""
    threads = min(inputs.cores, len(inputs.plan.crosscoders))
    return Part(seconds=steps * inputs.hardware.step * inputs.devices / threads)


def _training(inputs: CostInputs, one: CrosscoderPlan, steps: int) -> Part:
    """All steps of a crosscoder: dense at first where its sparsity must be learned; with an MLP throughout."""
    settings, size = inputs.plan.study.training, inputs.size(one)
    match one.sparsity:
        case BatchTopK(k=k):
            l0, dense = float(k), 0.0
        case _:
            l0, dense = inputs.assumed.l0, min(steps, DENSE_PART / settings.lr)
    if size.hidden or l0 > borders(inputs.on_gpu)[1] * size.features:
        dense, l0 = float(steps), 0.0
    tokens = settings.batch_size
    return (
        dense_steps(inputs, size, tokens, dense)
        + sparse_steps(inputs, size, tokens, steps - dense, l0)
        + exchange(inputs, size, tokens, steps)
    )
