"""Training of one crosscoder on texts of your own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from featdiff.activations.stream import (
    Activations,
    ActivationStream,
    StreamState,
    collect,
    steps_per_epoch,
)
from featdiff.api.settings import settings_of
from featdiff.config.crosscoder import BatchTopK, Design, Sparsity
from featdiff.config.study import ActivationSettings, TrainingSettings
from featdiff.crosscoder.files import QUALITY
from featdiff.crosscoder.matmul import fast_products_are_exact, float32_products
from featdiff.crosscoder.metrics import measure
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.trainer import Metrics, Trainer
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup

NAME = "crosscoder"
HELD_OUT_SHARE = 0.05
"""Of the rows, where no held-out text is given."""
RECORDS = 100
"""About so many records has a history."""


@dataclass(frozen=True)
class _Shortened:
    """A stream of which only the first `steps` batches are taken: schedules are laid over these."""

    stream: ActivationStream
    steps: int

    @property
    def models(self) -> tuple[str, ...]:
        return self.stream.models

    @property
    def scale(self) -> Tensor:
        return self.stream.scale

    def batches(self, state: StreamState | None = None) -> Iterator[tuple[Activations, StreamState]]:
        return self.stream.batches(state)

    def state_from(self, tensors: dict[str, Tensor]) -> StreamState:
        return self.stream.state_from(tensors)


def train_crosscoder(
    models: Lineup,
    tokens: Corpus,
    *,
    features: int,
    sparsity: Sparsity = BatchTopK(),  # noqa: B008 -- frozen
    design: Design = Design(),  # noqa: B008 -- frozen
    batch_size: int = 1024,
    lr: float = 1e-4,
    steps: int | None = None,
    epochs: int = 1,
    seed: int = 0,
    device: str | None = None,
    folder: str | Path | None = None,
    held_out: Corpus | None = None,
    log_every: int | None = None,
    activations: ActivationSettings = ActivationSettings(),  # noqa: B008 -- frozen
    progress: Callable[[Metrics], object] | None = None,
) -> Crosscoder:
    """Train a crosscoder on the residual streams of all models of a lineup.

    Arguments:
        models: by `load_models`; the crosscoder aligns all of them.
        tokens: by `tokenize`; what the models read.
        features: size of the dictionary.
        sparsity: ReLU with a penalty, BatchTopK or JumpReLU.
        design: objective, encoder, shared features and alignment, where other than the paper's.
        batch_size: tokens per step.
        lr: learning rate of Adam; it falls linearly to 0 over the last fifth of the steps.
        steps: how many steps to take; None takes `epochs` passes over the tokens.
        epochs: passes over the tokens, where `steps` is None.
        seed: of the weights and of the order of the tokens.
        device: where the crosscoder is trained; None: where the models' residual streams come together.
        folder: where checkpoints lie, from which a killed training goes on, and where `crosscoder/` is written in the
            end, with metrics.jsonl; None writes nothing.
        held_out: text on which it is measured how often each feature fires; None keeps the last twentieth of the rows
            of `tokens` apart for that.
        log_every: steps between records; None makes about a hundred.
        activations: batch size and buffer of the models, and which tokens are dropped.
        progress: called with each record.

    Returns the crosscoder, in the gauge of unit summed decoder norm, with `history`, a record for each logged step
    (reconstruction and sparsity in normalised units, l0, dead_share, variance_explained), and `density` [features], by
    which `Attribution.of` knows the features that are alive.

    Raises ValueError for text too short to train and measure on, for settings out of range, and for activations or a
    loss that are not finite.

    >>> crosscoder = train_crosscoder(models, tokens, features=4096, sparsity=BatchTopK(k=32), steps=2000)
    >>> crosscoder.history[-1]["variance_explained"]
    """
    if held_out is None:
        tokens, held_out = _split(tokens)
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}; take at least 1")
    per_epoch = steps_per_epoch(tokens, activations, batch_size)
    passes = epochs if steps is None else ceil(steps / max(per_epoch, 1))
    steps = passes * per_epoch if steps is None else steps
    log_every = max(1, steps // RECORDS) if log_every is None else log_every
    settings = settings_of(TrainingSettings, batch_size=batch_size, lr=lr, epochs=passes, log_every=log_every)
    device = str(models.device) if device is None else device
    crosscoder = Crosscoder(models.names, models.d_model, features, sparsity, seed, design=design).to(device)
    place = None if folder is None else Path(folder)
    with float32_products(fast_products_are_exact()):
        stream = ActivationStream(models, tokens, activations, batch_size=batch_size, epochs=passes, seed=seed)
        trainer = Trainer({NAME: crosscoder}, _Shortened(stream, steps), settings, folder=place, device=device)
        for records in trainer.steps():
            if progress is not None and records:
                progress(records[NAME])
            if trainer.step == steps:
                break
        trainer.finish()
    crosscoder.history = trainer.history[NAME]
    found = measure(crosscoder, collect(models, held_out, stream.calibration, activations))
    crosscoder.density = found.density.to(device)
    if place is not None:
        save_file({"density": found.density, "mean": found.mean}, place / NAME / QUALITY)
    return crosscoder


def _split(tokens: Corpus) -> tuple[Corpus, Corpus]:
    """The rows to train on, and the last ones, to measure on."""
    rows = len(tokens.input_ids)
    apart = max(1, round(HELD_OUT_SHARE * rows))
    if apart == rows:
        raise ValueError("the tokens fill one row, and one is kept to measure on; give more text, or held_out")
    return tokens.select(torch.arange(rows - apart)), tokens.select(torch.arange(rows - apart, rows))
