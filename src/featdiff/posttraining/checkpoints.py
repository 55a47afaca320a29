"""Checkpoints of a training run, which the study compares, and states, from which a killed run goes on.

A callback of the Hugging Face Trainer keeps both; no pickle is written or read. On a CPU, training goes on from a state
as if it had never stopped, to the last bit: the state holds weights, moments, learning rate schedule, position in the
data and all random number generators, and is taken only between two generations of rollouts, when nothing is pending.
"""

import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from featdiff.files import read_json, replace_folder, write_json, write_text
from featdiff.models.loading import DTYPES
from featdiff.posttraining.arguments import Training
from featdiff.posttraining.state import latest_state, load_generators, load_optimizer, save_state, state_step
from featdiff.progress import Progress

PARTIAL = ".partial"
NOT_LOGGED = {"step_time", "num_tokens"}  # these two would tell a run that was taken up again from one that was not


class Checkpoints(TrainerCallback):
    """Callback that publishes checkpoints at equal parts of a run, keeps a state, and writes `log.jsonl`.

    paradigm: sft or grpo, the section of the settings that an error names.
    steps: optimizer steps of the whole run.
    boundary: states are taken only after a multiple of so many steps.

    The weights are published in the precision of `training.base`. A state is taken after each checkpoint, and where
    `training.state_minutes` have passed since the last one.
    """

    def __init__(self, paradigm: str, training: Training, *, steps: int, boundary: int) -> None:
        count = training.checkpoints
        if steps < count:
            raise ValueError(
                f"posttrain.{paradigm} makes {steps} optimizer steps, too few for {count} checkpoints; "
                f"give more prompts or smaller batches, or lower posttrain.checkpoints"
            )
        # Not the policy's tokenizer, which was given a padding token.
        self._paradigm, self._folder, self._tokenizer = paradigm, training.folder, training.base.tokenizer()
        self._steps, self._parts = steps, {step: k for k, step in enumerate(equal_parts(steps, count), 1)}
        self._boundary, self._seconds = boundary, training.state_minutes * 60
        self._dtype = DTYPES[training.base.dtype]
        self._saved, self._state_is_due = time.monotonic(), False
        self._resumed_from = self._generators_from = latest_state(self._folder)
        self._progress = Progress(paradigm, total=steps, unit="step", done=state_step(self._resumed_from))

    def train(self, trainer: Trainer) -> None:
        """Train to the end, from the latest state if there is one."""
        for leftover in self._folder.glob("*" + PARTIAL):
            shutil.rmtree(leftover)
        log = self._folder / "log.jsonl"  # a killed attempt may have gone further than its last state
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        write_text(log, "".join(lines[: state_step(self._resumed_from)]))
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)
        with self._progress:
            trainer.train(resume_from_checkpoint=str(self._resumed_from) if self._resumed_from else None)
        drop_states(self._folder)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: object
    ) -> None:
        """Restore optimizer and schedule from the state; the trainer has restored weights and position in the data."""
        assert state.max_steps == self._steps, f"the trainer plans {state.max_steps} steps, not {self._steps}"
        if self._resumed_from is not None:
            load_optimizer(self._resumed_from, *_optimizer_of(objects))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: object
    ) -> None:
        """Set the random number generators at the last moment: setting up the data loader draws from them."""
        if self._generators_from is not None:
            load_generators(self._generators_from)
            self._generators_from = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float | None] | None = None,
        **objects: object,
    ) -> None:
        """Log each step, once its numbers are known. The trainer's summary of the whole run has no loss."""
        if logs is None or "loss" not in logs:
            return
        for name in ("loss", "grad_norm"):
            if (value := logs.get(name)) is not None and not math.isfinite(value):
                raise ValueError(
                    f"posttrain.{self._paradigm}: {name} became {value} at step {state.global_step}; lower "
                    f"posttrain.{self._paradigm}.lr, or set lineup.dtype to float32"
                )
        state.log_history.clear()
        kept = {name: value for name, value in logs.items() if name not in NOT_LOGGED}
        with (self._folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": state.global_step, **kept}) + "\n")
        self._progress.advance()
        self._keep(state, objects)

    def _keep(self, state: TrainerState, objects: dict[str, object]) -> None:
        model, step = objects["model"], state.global_step
        assert isinstance(model, PreTrainedModel)
        if step in self._parts:
            self._publish(model, self._folder / f"checkpoint-{self._parts[step]}")
        self._state_is_due |= step in self._parts or time.monotonic() - self._saved >= self._seconds
        if self._state_is_due and step % self._boundary == 0 and step < self._steps:
            optimizer, scheduler = _optimizer_of(objects)
            partial = self._folder / f"state{PARTIAL}"
            save_state(partial, model, optimizer, scheduler, state)
            partial.rename(latest := self._folder / f"state-{step}")
            drop_states(self._folder, but=latest)
            self._saved, self._state_is_due = time.monotonic(), False

    def _publish(self, model: PreTrainedModel, place: Path) -> None:
        partial = place.with_name(place.name + PARTIAL)
        weights = _cast(model.state_dict(), self._dtype)
        model.save_pretrained(partial, state_dict=weights, max_shard_size="1TB")
        config = read_json(partial / "config.json")
        write_json(partial / "config.json", config | {"dtype": str(self._dtype).removeprefix("torch.")})
        self._tokenizer.save_pretrained(partial)
        replace_folder(partial, place)  # an attempt that was killed before its next state may have published it


def is_finished(training: Training) -> bool:
    """Whether a run has published its last checkpoint; if so, no state of it is left."""
    if not (training.folder / f"checkpoint-{training.checkpoints}").exists():
        return False
    drop_states(training.folder)
    return True


def drop_states(folder: Path, but: Path | None = None) -> None:
    """Delete every state from which training could go on, but one."""
    for state in folder.glob("state-*"):
        if state != but:
            shutil.rmtree(state)


def equal_parts(steps: int, count: int) -> list[int]:
    """The steps at which 1/count, 2/count, ... of the run are done.

    >>> equal_parts(12, 5)
    [2, 5, 7, 10, 12]
    """
    return [(steps * part + count // 2) // count for part in range(1, count + 1)]


def _cast(weights: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Cast weights to another precision; tied weights stay tied, so that they are written once."""
    by_place = {weight.data_ptr(): weight for weight in weights.values()}
    cast = {place: one.to(dtype) if one.is_floating_point() else one for place, one in by_place.items()}
    return {name: cast[weight.data_ptr()] for name, weight in weights.items()}


def _optimizer_of(objects: dict[str, object]) -> tuple[Optimizer, LRScheduler]:
    optimizer, scheduler = objects["optimizer"], objects["lr_scheduler"]
    assert isinstance(optimizer, Optimizer) and isinstance(scheduler, LRScheduler)
    return optimizer, scheduler
