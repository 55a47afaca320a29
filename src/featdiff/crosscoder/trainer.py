"""Training: one stream of activations feeds every crosscoder of a study, each with its slice of the models axis.

1. Divide a batch by the stream's per-model scale, which every crosscoder takes over; where it wants alignment, turn
   every model onto its first.
2. For each crosscoder: gradients of the loss (`loss.py`), clip at a global norm, one step of Adam.
   beta rises linearly from 0 over the first `warmup` share of the steps; the learning rate falls linearly to 0 over the
   last `decay`.
3. Every `log_every` steps a record per crosscoder in `history` and metrics.jsonl; every `checkpoint_minutes` a
   checkpoint.
4. At the end: back to the models' own bases, the gauge of unit summed decoder norm, then crosscoder.safetensors and
   config.json; the checkpoints go.

A killed run that is started again ends with the same bytes as an undisturbed one. Several processes (`Ranks`) may share
the tokens of every batch, the features, or both; then the first of them writes. Without a folder nothing is written.
"""

import json
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from safetensors.torch import save_file
from torch import Tensor

from featdiff.activations.stream import Activations
from featdiff.config.crosscoder import BatchTopK, JumpReLU, ReLU, Sparsity
from featdiff.config.fingerprint import material
from featdiff.config.methods import TRAINING
from featdiff.config.study import TrainingSettings
from featdiff.crosscoder.checkpoint import Checkpoint, Checkpoints
from featdiff.crosscoder.kernels.parameter_rows import Found
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.matmul import fast_products_are_exact, float32_products
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.procrustes import rotations, turn_back, turned
from featdiff.crosscoder.shapes import Values
from featdiff.crosscoder.shards import assemble, feature_axis, from_rows, part_of, to_rows
from featdiff.crosscoder.step import Learner
from featdiff.files import write_text
from featdiff.progress import Progress

Metrics = dict[str, float]
"""A record of one step of one crosscoder: a line of metrics.jsonl."""
METRICS = "metrics.jsonl"
ALIGNMENT = "alignment.safetensors"
"""Holds `rotation` [models d_model d_model], where the crosscoder was trained on aligned models: its rows times this
lie in the frame of the first model."""
SAME_SCALE = 1e-3
"""How far the scales of a resumed run may be off: another number of threads or processes rounds differently."""


@runtime_checkable
class StreamState(Protocol):
    """Where a stream stands after a batch."""

    def tensors(self) -> dict[str, Tensor]:
        """All of the state by name, for a checkpoint."""
        ...


State = TypeVar("State", bound=StreamState)
Map = Callable[[Callable[[str], Metrics | None], Iterable[str]], Iterable[Metrics | None]]


@runtime_checkable
class Stream(Protocol[State]):
    """Batches of raw activations of named models, which can go on from a state."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names along the models axis."""
        ...

    @property
    def scale(self) -> Tensor:
        """[models]; raw = scale * normalised."""
        ...

    @property
    def steps(self) -> int:
        """Number of batches of the whole run."""
        ...

    def batches(self, state: State | None = None) -> Iterator[tuple[Activations, State]]:
        """The batches after `state`, each with the state after it."""
        ...

    def state_from(self, tensors: dict[str, Tensor]) -> State:
        """The state whose `tensors` a checkpoint holds."""
        ...


def train(
    crosscoders: dict[str, Crosscoder],
    stream: Stream[State],
    settings: TrainingSettings,
    *,
    folder: Path | None = None,
    device: str = "cpu",
    checkpoint_steps: int | None = None,
    ranks: Ranks | None = None,
) -> dict[str, list[Metrics]]:
    """Train every crosscoder in place on `stream` to its end; the records of each, as in metrics.jsonl.

    Arguments and errors are those of `Trainer`; with a folder, each crosscoder is written to `folder`/<name>/.
    """
    trainer = Trainer(
        crosscoders, stream, settings, folder=folder, device=device, checkpoint_steps=checkpoint_steps, ranks=ranks
    )
    for _ in trainer.steps():
        pass
    trainer.finish()
    return trainer.history


class Trainer(Generic[State]):
    """Training of crosscoders, by name, on one stream, a step at a time; `train` takes all of them.

    A checkpoint in `folder`/checkpoints is resumed; one of other settings is refused. `checkpoint_steps` sets
    checkpoints by steps instead of minutes; without a folder there are none. `ranks` are the processes that share the
    work; the stream gives each of them its share of every batch. ValueError where a crosscoder reads a model that the
    stream lacks, where its features cannot be divided, where the stream is empty, and where activations or a loss are
    not finite.

    >>> trainer = Trainer({"joint": crosscoder}, stream, TrainingSettings(lr=1e-3))
    >>> for records in trainer.steps():
    ...     print(records)
    >>> trainer.finish()
    """

    history: dict[str, list[Metrics]]
    """The records of each crosscoder so far; of a resumed run, those before as well."""

    def __init__(
        self,
        crosscoders: dict[str, Crosscoder],
        stream: Stream[State],
        settings: TrainingSettings,
        *,
        folder: Path | None = None,
        device: str = "cpu",
        checkpoint_steps: int | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._crosscoders, self._stream, self._settings = crosscoders, stream, settings
        self._folder, self._device, self._checkpoint_steps = folder, device, checkpoint_steps
        self._ranks = Ranks() if ranks is None else ranks
        self._columns = {name: crosscoder.columns(stream.models) for name, crosscoder in crosscoders.items()}
        self._parts = {name: part_of(crosscoder, self._ranks).to(device) for name, crosscoder in crosscoders.items()}
        for name, part in self._parts.items():
            part.scale.copy_(stream.scale[self._columns[name]])
        self._at_once = len(crosscoders) if self._ranks.count == 1 else 1
        threads = torch.get_num_threads() if self._at_once == 1 else 1
        self._learners = {
            name: Learner(
                part,
                lr=settings.lr,
                betas=(settings.beta1, settings.beta2),
                clip=settings.clip,
                threads=threads,
                ranks=self._ranks,
            )
            for name, part in self._parts.items()
        }
        self._checkpoints: Checkpoints | None = None
        if folder is not None:
            self._checkpoints = Checkpoints(folder / "checkpoints", self._fingerprint(), self._ranks)
        start, self._state = self._start()
        self.step, self._fast_products = start.step, start.fast_products
        self._turns = self._rotations(start)
        self.history = {name: [] for name in crosscoders}
        if folder is not None and self._ranks.rank == 0:
            self.history = {name: _truncated(folder / name / METRICS, start.step) for name in crosscoders}

    def steps(self) -> Iterator[dict[str, Metrics]]:
        """Take the steps that are left; after each one the records of the crosscoders that have one there."""
        stream, ranks, written = self._stream, self._ranks, time.monotonic()
        with (
            float32_products(self._fast_products),
            _workers(self._at_once, self._device) as each,
            Progress("training", stream.steps, "step", self.step) as progress,
        ):
            for batch, after in stream.batches(self._state):
                due = ranks.rank == 0 and self._due(self.step + 1, written)
                total, due = ranks.sum(torch.tensor([len(batch.values), int(due)])).tolist()
                values = ranks.tokens_of_row(batch.values.to(self._device))
                found = each(partial(self._advance, values, total), self._learners)
                records = {name: one for name, one in zip(self._learners, found, strict=True) if one is not None}
                self._record(records)
                self.step += 1
                if due and self._checkpoints is not None:
                    tensors = _of_learners(self._learners)
                    tensors |= {f"stream.{name}": tensor for name, tensor in after.tensors().items()}
                    tensors |= {f"alignment.{name}": turn for name, turn in self._turns.items()}
                    self._checkpoints.write(Checkpoint(self.step, self._fast_products, tensors))
                    written = time.monotonic()
                progress.advance()
                yield records

    @torch.no_grad()
    def finish(self) -> None:
        """Complete the crosscoders once all steps are taken, and write them."""
        if not self.step:
            raise ValueError(
                "the stream holds no batch of activations; raise corpus.tokens or lower training.batch_size"
            )
        for name, crosscoder in self._crosscoders.items():
            assemble(crosscoder, self._parts[name], self._ranks)
            crosscoder.zero_grad(set_to_none=True)
            if name in self._turns:
                turn_back(crosscoder, self._turns[name])
            crosscoder.canonicalise()
        if self._folder is None or self._checkpoints is None or self._ranks.rank:
            return
        for name, turn in self._turns.items():
            save_file({"rotation": turn.cpu().contiguous()}, self._folder / name / ALIGNMENT)
        for name, crosscoder in self._crosscoders.items():
            crosscoder.save(self._folder / name)
        self._checkpoints.remove()

    def _advance(self, values: Values, total: int, name: str) -> Metrics | None:
        """One step of one crosscoder on a batch of `total` tokens over all processes; its record where one is due."""
        learner, settings, step, steps = self._learners[name], self._settings, self.step, self._stream.steps
        scaled = values[:, self._columns[name]] / self._parts[name].scale[:, None]
        normalised = turned(scaled, self._turns.get(name))
        lr, ramp = learning_rate(settings, step, steps), sparsity_ramp(learner.crosscoder.sparsity, step, steps)
        found = learner.gradients(normalised, ramp, total)
        if not math.isfinite(float(found.reconstruction)):
            raise ValueError(_not_finite(name, learner, normalised, step))
        learner.apply(found, total, lr)
        if step and step + 1 != steps and (step + 1) % settings.log_every:
            return None
        measured = _measured(learner, normalised, total, found, settings)
        return {"step": step + 1, **measured, "sparsity_ramp": ramp, "lr": lr}

    def _record(self, records: dict[str, Metrics]) -> None:
        for name, record in records.items():
            self.history[name].append(record)
            if self._folder is not None and self._ranks.rank == 0:
                with (self._folder / name / METRICS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")

    def _due(self, step: int, written: float) -> bool:
        """Whether a checkpoint is due after `step` steps, the last having been `written` then."""
        if self._checkpoint_steps is not None:
            return step % self._checkpoint_steps == 0
        return time.monotonic() - written >= 60 * self._settings.checkpoint_minutes

    def _fingerprint(self) -> dict[str, object]:
        """What the outcome depends on, as far as it is known here."""
        return {
            "method": TRAINING,
            "crosscoders": {
                name: one.config().model_dump(mode="json", exclude={"gauge", "provenance"})
                for name, one in self._crosscoders.items()
            },
            "steps": self._stream.steps,
            "training": material(self._settings),
        }

    def _start(self) -> tuple[Checkpoint, State | None]:
        """The checkpoint from which to go on, taken over by the learners; an empty one and no state in a new run.

        The scales of a checkpoint go on as well. They must be those of the stream, but for rounding.
        """
        checkpoints = self._checkpoints
        found = None if checkpoints is None else checkpoints.newest(_of_learners(self._learners))
        if checkpoints is None or found is None:
            return Checkpoint(0, self._device == "cpu" and fast_products_are_exact(), {}), None
        for name, learner in self._learners.items():
            scale = learner.crosscoder.scale.clone()
            tensors = _within(found.tensors, f"crosscoder.{name}.")
            learner.restore({key: from_rows(key, tensor) for key, tensor in tensors.items()})
            if not torch.allclose(scale, learner.crosscoder.scale, rtol=SAME_SCALE):
                raise ValueError(
                    f"the checkpoints in {checkpoints.folder} belong to a run on other activations; "
                    "delete that folder to train anew"
                )
        return found, self._stream.state_from(_within(found.tensors, "stream."))

    def _rotations(self, start: Checkpoint) -> dict[str, Tensor]:
        """Of the crosscoders that want alignment: from the checkpoint, or from the stream's first batches."""
        if start.step:
            found = _within(start.tensors, "alignment.")
            return {name: turn.to(self._parts[name].W_dec.device) for name, turn in found.items()}
        batches = (batch for batch, _ in self._stream.batches())
        return rotations(self._parts, batches, self._settings.batch_size, self._ranks)


@contextmanager
def _workers(crosscoders: int, device: str) -> Generator[Map]:
    """A `map` over crosscoders: on a CPU, one thread for each at a time, where one process does all the work.

    A step of one crosscoder gains less from a second thread than a second crosscoder does, and so a result does not
    depend on the number of threads. A single crosscoder gets them all (`Learner`).
    """
    threads = min(crosscoders, torch.get_num_threads())
    if device != "cpu":
        yield map
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool.map


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Adam's learning rate at `step` of `steps`, from 0: constant, then linear to 0 over the last `decay` share."""
    decaying = settings.decay * steps
    return settings.lr * min(1.0, max(0.0, steps - step) / decaying) if decaying else settings.lr


def sparsity_ramp(sparsity: Sparsity, step: int, steps: int) -> float:
    """Share of the weight of L1 or tanh at `step` of `steps`, from 0: linear from 0 over the first `warmup` share."""
    match sparsity:
        case ReLU(warmup=warmup) | JumpReLU(warmup=warmup):
            return min(1.0, step / (warmup * steps)) if warmup else 1.0
        case BatchTopK():
            return 1.0


def _measured(learner: Learner, normalised: Values, total: int, found: Found, settings: TrainingSettings) -> Metrics:
    """Figures of one batch; `dead_share` counts features that were silent for the last `log_every` batches."""
    mean = learner.ranks.sum_over_tokens(normalised.sum(dim=0)) / total
    variation = learner.ranks.sum_over_tokens((normalised - mean).square().sum()) / total
    silent = (learner.silent_tokens >= settings.log_every * settings.batch_size).sum()
    return {
        "reconstruction": float(found.reconstruction),
        "sparsity": float(found.sparsity),
        "l0": found.active / total,
        "dead_share": int(learner.ranks.sum_over_features(silent)) / learner.features,
        "variance_explained": float(1 - found.squared_error / variation),
    }


def _not_finite(name: str, learner: Learner, normalised: Values, step: int) -> str:
    counts = learner.ranks.sum_over_tokens((~normalised.isfinite()).sum(dim=(0, 2))).tolist()
    if broken := [model for model, count in zip(learner.crosscoder.models, counts, strict=True) if count]:
        return (
            f"activations of {', '.join(broken)} hold NaN or infinity at step {step}; "
            f"check those models' weights, or load them with lineup.dtype = 'float32' (float16 overflows)"
        )
    return f"the loss of crosscoder {name!r} is not finite at step {step}; lower training.lr or training.clip"


def _of_learners(learners: dict[str, Learner]) -> dict[str, Tensor]:
    """What a checkpoint holds of learners: rows of features, of which each process has its own, and the rest."""
    return {
        f"crosscoder.{name}.{key}": tensor if feature_axis(key) is None else learner.ranks.placed(to_rows(key, tensor))
        for name, learner in learners.items()
        for key, tensor in learner.tensors().items()
    }


def _within(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _truncated(path: Path, step: int) -> list[Metrics]:
    """Keep the lines up to `step`, and make the folder; a killed run may have written further than its checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() and step else []
    # The last line of a killed run may be cut short; it comes after the checkpoint, so nothing is lost with it.
    records: dict[str, Metrics] = {line: json.loads(line) for line in lines if line.endswith("}")}
    kept = {line: record for line, record in records.items() if record["step"] <= step}
    write_text(path, "".join(f"{line}\n" for line in kept))
    return list(kept.values())
