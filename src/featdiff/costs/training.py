"""What training the crosscoders costs: one harvest for all, their steps, and the measurement of their fit."""

import os
from math import ceil

from featdiff.config.crosscoder import BatchTopK, CrosscoderPlan
from featdiff.costs.estimate import Cost, CostInputs, Work
from featdiff.crosscoder.kernels.borders import CPU_COMPACT, GPU_SCREENED
from featdiff.crosscoder.sizes import FLOAT, CrosscoderSize
from featdiff.run.sizes import fullest

GATHERS = 4  # times that a sparse step reads the rows of the active features
DENSE_PART = 0.5  # an L1 run starts dense: until the learning rates of its steps sum to this (0.25 to 0.7 was seen)
STEP_CALLS = 6  # calls of a block that take as long as a step does at least
CHECKPOINTS = 3  # on the disk at most: a new one is whole before the older of two goes


def cost(inputs: CostInputs) -> Cost:
    """Harvest, training of every crosscoder, and their fit on held-out tokens."""
    study, plan, sizes = inputs.plan.study, inputs.plan, inputs.sizes
    steps = study.training.epochs * ceil(study.corpus.tokens / study.training.batch_size)
    trained = sum((training(inputs, one, steps) for one in plan.crosscoders.values()), Work())
    cached = 0 if study.activations.cache is None else study.corpus.tokens * inputs.distinct(plan.harvested)
    fit = inputs.fit(plan.harvested, tuple(plan.crosscoders), study.corpus.held_out_tokens)
    return Cost(
        work=(harvest(inputs) + trained + fit).shared(inputs.devices),
        memory=fullest(inputs.while_training(), inputs.while_measuring()),
        stays=sum(size.file_bytes for size in sizes) + cached * inputs.shape.d_model * inputs.value,
        passing=CHECKPOINTS * sum(size.checkpoint_bytes for size in sizes),
    )


def harvest(inputs: CostInputs) -> Work:
    """Every model over the corpus, attending to whole rows: once, or every epoch where no buffer or cache holds it."""
    study = inputs.plan.study
    kept = study.activations.cache is not None or inputs.buffered >= study.corpus.tokens
    tokens = study.corpus.tokens * (1 if kept else study.training.epochs)
    return inputs.read(inputs.distinct(inputs.plan.harvested), tokens, study.corpus.context, inputs.tokens_per_pass)


def training(inputs: CostInputs, one: CrosscoderPlan, steps: int) -> Work:
    """All steps of a crosscoder: dense at first where its sparsity must be learned; with an MLP throughout."""
    settings, size, dense = inputs.plan.study.training, inputs.size(one), 0.0
    if isinstance(one.sparsity, BatchTopK):
        l0 = float(one.sparsity.k)
    else:
        l0, dense = inputs.assumed.l0, min(steps, DENSE_PART / settings.lr)
    if size.hidden or l0 > (GPU_SCREENED if inputs.on_gpu else CPU_COMPACT) * size.features:
        dense = float(steps)
    tokens = settings.batch_size
    # On a CPU each crosscoder learns in a thread of its own; devices do not share what a step takes at least.
    cores = 1 if inputs.on_gpu else inputs.plan.study.threads or os.cpu_count() or 1
    least = steps * STEP_CALLS * inputs.hardware.call * inputs.devices / min(cores, len(inputs.plan.crosscoders))
    return (
        dense_steps(inputs, size, tokens, dense)
        + sparse_steps(inputs, size, tokens, steps - dense, l0)
        + exchange(inputs, size, tokens, steps)
        + Work(seconds=least)
    )


def dense_steps(inputs: CostInputs, size: CrosscoderSize, tokens: int, steps: float) -> Work:
    """So many dense steps: a product in the encoder, one in the decoder, and three backward."""
    return inputs.products(5.0 * tokens * size.weights * steps) + _adam(inputs, size, steps)


def sparse_steps(inputs: CostInputs, size: CrosscoderSize, tokens: int, steps: float, l0: float) -> Work:
    """So many sparse steps with `l0` active features per token, which the encoder finds in low precision."""
    encoder, active = 2.0 * tokens * size.features * size.width * steps, tokens * l0 * size.width * steps
    gathered = inputs.products(8 * active, moved=GATHERS * FLOAT * active)
    return inputs.products(encoder, bf16=True) + gathered + _adam(inputs, size, steps)


def _adam(inputs: CostInputs, size: CrosscoderSize, steps: float) -> Work:
    """Seven times all parameters are read or written, in every group of devices."""
    return inputs.work(moved=7 * size.file_bytes * inputs.groups * steps)


def exchange(inputs: CostInputs, size: CrosscoderSize, tokens: int, steps: float) -> Work:
    """Sums of gradients over groups, and of reconstructions over shards: each of n sends 2 (n - 1) / n of a length."""
    groups, shards = inputs.groups, inputs.plan.study.training.feature_shards
    gradients = size.file_bytes / shards * (groups - 1) / groups
    reconstructions = FLOAT * tokens / groups * size.width * (shards - 1) / shards
    return inputs.work(sent=2 * (gradients + reconstructions) * groups * shards * steps)
