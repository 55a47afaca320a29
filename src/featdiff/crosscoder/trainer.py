"""Training: one stream of activations feeds every crosscoder of a study, each with its slice of the models axis.

1. Divide a batch by the stream's per-model scale, which every crosscoder takes over; where it wants alignment, turn
   every model onto its first.
2. For each crosscoder: gradients, clip at a global norm, one step of Adam.
   beta rises linearly from 0 over the first `warmup` share of the steps; the learning rate falls linearly to 0 over the
   last `decay`.
3. Every `log_every` steps a line per crosscoder in metrics.jsonl; every `checkpoint_minutes` a checkpoint.
4. At the end: back to the models' own bases, the gauge of unit summed decoder norm, then crosscoder.safetensors and
   config.json; the checkpoints go.

A killed run that is started again ends with the same bytes as an undisturbed one. Several processes (`Ranks`) may share
the tokens of every batch, the features, or both; then the first of them writes.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from featdiff.activations.stream import Activations
from featdiff.config.crosscoder import BatchTopK, JumpReLU, ReLU, Sparsity
from featdiff.config.study import TrainingSettings
from featdiff.crosscoder.checkpoint import Checkpoint, Checkpoints
from featdiff.crosscoder.kernels.parameter_rows import Found
from featdiff.crosscoder.kernels.ranks import Alone, Ranks
from featdiff.crosscoder.matmul import fast_products_are_exact, float32_products
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.procrustes import rotations, turn_back, turned
from featdiff.crosscoder.shards import assemble, feature_axis, from_rows, part_of, to_rows
from featdiff.crosscoder.step import Learner
from featdiff.progress import Progress

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


def train(
    crosscoders: dict[str, Crosscoder],
    stream: Stream[State],
    settings: TrainingSettings,
    *,
    folder: Path,
    state_from: Callable[[dict[str, Tensor]], State],
    device: str = "cpu",
    checkpoint_steps: int | None = None,
    ranks: Ranks | None = None,
) -> None:
    """Train every crosscoder in place on `stream`, and write each to `folder`/<name>/.

    `state_from` makes the stream's state from what a checkpoint holds of it: `StreamState.from_tensors`. A checkpoint
    in `folder`/checkpoints is resumed; one of other settings is refused. `checkpoint_steps` sets checkpoints by steps
    instead of minutes. `ranks` are the processes that share the work; the stream gives each of them its share of every
    batch. ValueError where a crosscoder reads a model that the stream lacks, where its features cannot be divided,
    where the stream is empty, and where activations or a loss are not finite.
    """
    ranks = Alone() if ranks is None else ranks
    columns = {name: crosscoder.columns(stream.models) for name, crosscoder in crosscoders.items()}
    parts = {name: part_of(crosscoder, ranks).to(device) for name, crosscoder in crosscoders.items()}
    for name, part in parts.items():
        part.scale.copy_(stream.scale[columns[name]])
    alone = len(crosscoders) == 1 or ranks.count > 1
    threads = torch.get_num_threads() if alone else 1
    learners = {name: _learner(part, settings, threads, ranks) for name, part in parts.items()}
    checkpoints = Checkpoints(folder / "checkpoints", _fingerprint(crosscoders, stream, settings), ranks)
    start, state = _start(checkpoints, learners, state_from, device)
    turns = _turns(start, parts, stream, settings, ranks)
    if ranks.rank == 0:
        for name in learners:
            _truncate(folder / name / METRICS, start.step)

    step, written = start.step, time.monotonic()
    with (
        float32_products(start.fast_products),
        _workers(1 if alone else len(learners), device) as each,
        Progress("training", stream.steps, "step", start.step) as progress,
    ):
        for batch, after in stream.batches(state):
            due = ranks.rank == 0 and _due(step + 1, written, settings.checkpoint_minutes, checkpoint_steps)
            total, due = ranks.sum(torch.tensor([len(batch.values), int(due)])).tolist()
            values = ranks.tokens_of_row(batch.values.to(device))

            def advance(
                name: str, values: Tensor = values, total: int = total, step: int = step
            ) -> dict[str, float] | None:
                normalised = turned(values[:, columns[name]] / parts[name].scale[:, None], turns.get(name))
                return _step(name, learners[name], normalised, total, step, stream.steps, settings)

            for name, line in zip(learners, each(advance, learners), strict=True):
                if line is not None and ranks.rank == 0:
                    _append(folder / name / METRICS, line)
            step += 1
            if due:
                checkpoints.write(Checkpoint(step, start.fast_products, _tensors(learners, after, turns)))
                written = time.monotonic()
            progress.advance()
    if not step:
        raise ValueError("the stream holds no batch of activations; raise corpus.tokens or lower training.batch_size")
    for name, crosscoder in crosscoders.items():
        assemble(crosscoder, parts[name], ranks)
        crosscoder.zero_grad(set_to_none=True)
        if name in turns:
            turn_back(crosscoder, turns[name])
        crosscoder.canonicalise()
    if ranks.rank == 0:
        for name, turn in turns.items():
            save_file({"rotation": turn.cpu().contiguous()}, folder / name / ALIGNMENT)
        for name, crosscoder in crosscoders.items():
            crosscoder.save(folder / name)
        checkpoints.remove()


@contextmanager
def _workers(crosscoders: int, device: str) -> Iterator[Callable]:
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


def _step(
    name: str,
    learner: Learner,
    normalised: Float[Tensor, "tokens models d_model"],
    total: int,
    step: int,
    steps: int,
    settings: TrainingSettings,
) -> dict[str, float] | None:
    """One step of one crosscoder on a batch of `total` tokens over all processes; its line for the metrics where one is
    due."""
    lr, ramp = learning_rate(settings, step, steps), sparsity_ramp(learner.crosscoder.sparsity, step, steps)
    found = learner.gradients(normalised, ramp, total)
    if not math.isfinite(float(found.reconstruction)):
        raise ValueError(_not_finite(name, learner, normalised, step))
    learner.apply(found, total, lr)
    if step and step + 1 != steps and (step + 1) % settings.log_every:
        return None
    measured = _measured(learner, normalised, total, found, settings)
    return {"step": step + 1, **measured, "sparsity_ramp": ramp, "lr": lr}


def _measured(
    learner: Learner,
    normalised: Float[Tensor, "tokens models d_model"],
    total: int,
    found: Found,
    settings: TrainingSettings,
) -> dict[str, float]:
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


def _not_finite(name: str, learner: Learner, normalised: Float[Tensor, "tokens models d_model"], step: int) -> str:
    counts = learner.ranks.sum_over_tokens((~normalised.isfinite()).sum(dim=(0, 2))).tolist()
    if broken := [model for model, count in zip(learner.crosscoder.models, counts, strict=True) if count]:
        return (
            f"activations of {', '.join(broken)} hold NaN or infinity at step {step}; "
            f"check those models' weights, or load them with lineup.dtype = 'float32' (float16 overflows)"
        )
    return f"the loss of crosscoder {name!r} is not finite at step {step}; lower training.lr or training.clip"


def _learner(part: Crosscoder, settings: TrainingSettings, threads: int, ranks: Ranks) -> Learner:
    betas = (settings.beta1, settings.beta2)
    return Learner(part, lr=settings.lr, betas=betas, clip=settings.clip, threads=threads, ranks=ranks)


def _fingerprint(
    crosscoders: dict[str, Crosscoder], stream: Stream[State], settings: TrainingSettings
) -> dict[str, object]:
    """What the outcome depends on, as far as it is known here."""
    return {
        "crosscoders": {name: _choices(crosscoder) for name, crosscoder in crosscoders.items()},
        "steps": stream.steps,
        "training": settings.model_dump(mode="json", exclude={"checkpoint_minutes", "log_every", "feature_shards"}),
    }


def _choices(crosscoder: Crosscoder) -> dict[str, object]:
    return crosscoder.config().model_dump(mode="json", exclude={"gauge", "provenance"})


def _start(
    checkpoints: Checkpoints,
    learners: dict[str, Learner],
    state_from: Callable[[dict[str, Tensor]], State],
    device: str,
) -> tuple[Checkpoint, State | None]:
    """The checkpoint from which to go on, taken over by the learners; an empty one and no state in a new run.

    The scales of a checkpoint go on as well. They must be those of the stream, but for rounding.
    """
    found = checkpoints.newest(_of_learners(learners))
    if found is None:
        return Checkpoint(0, device == "cpu" and fast_products_are_exact(), {}), None
    for name, learner in learners.items():
        scale = learner.crosscoder.scale.clone()
        tensors = _within(found.tensors, f"crosscoder.{name}.")
        learner.restore({key: from_rows(key, tensor) for key, tensor in tensors.items()})
        if not torch.allclose(scale, learner.crosscoder.scale, rtol=SAME_SCALE):
            raise ValueError(
                f"the checkpoints in {checkpoints.folder} belong to a run on other activations; "
                "delete that folder to train anew"
            )
    return found, state_from(_within(found.tensors, "stream."))


def _turns(
    start: Checkpoint,
    parts: dict[str, Crosscoder],
    stream: Stream[State],
    settings: TrainingSettings,
    ranks: Ranks,
) -> dict[str, Tensor]:
    """The rotations of crosscoders that want alignment: from the checkpoint, or from the stream's first batches."""
    if start.step:
        found = _within(start.tensors, "alignment.")
        return {name: turn.to(parts[name].W_dec.device) for name, turn in found.items()}
    return rotations(parts, (batch for batch, _ in stream.batches()), settings.batch_size, ranks)


def _due(step: int, written: float, minutes: float, steps: int | None) -> bool:
    if steps is not None:
        return step % steps == 0
    return time.monotonic() - written >= 60 * minutes


def _tensors(learners: dict[str, Learner], state: StreamState, turns: dict[str, Tensor]) -> dict[str, Tensor]:
    place = {f"stream.{key}": tensor for key, tensor in state.tensors().items()}
    return _of_learners(learners) | place | {f"alignment.{name}": turn for name, turn in turns.items()}


def _of_learners(learners: dict[str, Learner]) -> dict[str, Tensor]:
    """What a checkpoint holds of learners: rows of features, of which each process has its own, and the rest."""
    return {
        f"crosscoder.{name}.{key}": tensor if feature_axis(key) is None else learner.ranks.placed(to_rows(key, tensor))
        for name, learner in learners.items()
        for key, tensor in learner.tensors().items()
    }


def _within(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _truncate(path: Path, step: int) -> None:
    """Keep the lines up to `step`, and make the folder; a killed run may have written further than its checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() and step else []
    # The last line of a killed run may be cut short; it comes after the checkpoint, so nothing is lost with it.
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    part = path.with_name(f"{path.name}.part")
    part.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    part.replace(path)


def _append(path: Path, line: dict[str, float]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
