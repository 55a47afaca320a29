"""Cost of a stage, and the primitives that it is summed from: forward passes, tuning, sampling, coding, reading.

A stage's own `cost(inputs)` stands in its folder; it takes `CostInputs` and gives a `Cost`. A piece of work takes as
long as what binds it: its products, the bytes that it moves or sends, or its calls; the others hide behind.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from featdiff.config.study import Study, TaskSettings
from featdiff.costs.assumptions import Assumptions
from featdiff.costs.hardware import Hardware, hardware_of
from featdiff.crosscoder.sizes import FLOAT, CrosscoderSize
from featdiff.models.logits import LOGIT_BYTES
from featdiff.models.shapes import Shape
from featdiff.run.plan import Plan
from featdiff.run.sizes import Bytes, StudySizes, base_shape, sizes_of

CODED_BYTES = 48
"""Written into new tensors per token and feature that is coded: pre-activations, gates, contributions, codes."""
ADAM_BYTES = 28
"""Per parameter of a dense step: weight and two moments read and written, gradient read."""
TUNED = 16
"""Bytes per parameter of a model that is tuned: weight, gradient and two moments, in float32."""
UNLIMITED = 32_768
"""Tokens of a generated answer where the study sets no limit: that of lm-eval's AIME."""


@dataclass(frozen=True)
class Part:
    """Something that a stage computes: FLOPs on all devices, and seconds."""

    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Part") -> "Part":
        return Part(self.flops + other.flops, self.seconds + other.seconds)

    def __mul__(self, times: float) -> "Part":
        return Part(self.flops * times, self.seconds * times)

    def shared(self, devices: int) -> "Part":
        """The same on so many devices that divide it evenly."""
        return Part(self.flops, self.seconds / devices)


@dataclass(frozen=True)
class Cost:
    """What a stage takes."""

    parts: Mapping[str, Part] = field(default_factory=dict[str, Part])
    """What is computed, by its name, one after another."""
    memory: Mapping[str, float] = field(default_factory=dict[str, float])
    """Bytes on one device at its fullest, by what holds them; empty where next to nothing is computed."""
    stays: float = 0.0
    """Bytes on the disk once the stage is done."""
    passing: float = 0.0
    """More bytes on the disk at most, while it runs."""

    @property
    def total(self) -> Part:
        """All parts together."""
        return sum(self.parts.values(), Part())

    @property
    def peak(self) -> float:
        """Bytes on one device."""
        return sum(self.memory.values())


@dataclass(frozen=True, kw_only=True)
class CostInputs(StudySizes):
    """A study with the shapes of its models, the devices, and what has to be assumed."""

    hardware: Hardware
    assumed: Assumptions
    teacher: Shape | None = None

    @property
    def cores(self) -> int:
        """Threads of the study on a CPU; 1 on an accelerator."""
        return 1 if self.on_gpu else self.plan.study.threads or os.cpu_count() or 1

    def work(
        self,
        flops: float = 0.0,
        *,
        moved: float = 0.0,
        sent: float = 0.0,
        calls: float = 0.0,
        of: str = "model",
        bf16: bool = False,
    ) -> Part:
        """A piece of work on one device: FLOPs, bytes moved and sent, blocks called."""
        hardware = self.hardware
        rate = hardware.bf16 if bf16 else hardware.fp32
        share = hardware.model_share if of == "model" else hardware.product_share
        bounds = (
            flops / (share * rate),
            moved / (hardware.bandwidth_share * hardware.bandwidth),
            sent / (hardware.bandwidth_share * hardware.link),
            calls * hardware.call,
        )
        return Part(flops, max(bounds))

    def forward(
        self, tokens: float, attended: float, calls: float, *, layers: int | None = None, head: bool = True
    ) -> Part:
        """Tokens through `layers` blocks (None: all) of a model, each attending to so many others, in so many calls."""
        blocks = self.shape.layers if layers is None else layers
        flops = tokens * self.shape.forward(attended, layers=blocks, head=head)
        return self.work(flops, calls=calls * blocks, bf16=self.value < FLOAT)

    def below_tap(self, tokens: float, attended: float, calls: float) -> Part:
        """Tokens through the blocks up to the hook point."""
        return self.forward(tokens, attended, calls, layers=self.layers, head=False)

    def above_tap(self, tokens: float, attended: float, calls: float, *, head: bool = False) -> Part:
        """Tokens through the blocks above the hook point."""
        return self.forward(tokens, attended, calls, layers=self.shape.layers - self.layers, head=head)

    def tuning(self, tokens: float, attended: float, calls: float, steps: float, passes: float) -> Part:
        """Training of all parameters; `passes` in units of a forward pass: 3, and 1 for every further forward pass."""
        adam = self.work(moved=ADAM_BYTES * self.shape.parameters * steps)
        return self.forward(tokens * passes, attended, calls * passes) + adam

    def tuning_memory(self, tokens: int) -> Bytes:
        """Memory of tuning with so many tokens in one forward pass.

        On an accelerator only what enters a block is kept, in float32, and the rest computed once more. TRL sums the
        gradient of the LM head over tiles, and never holds all logits.
        """
        shape = self.shape
        block = shape.block_values * self.value
        kept = shape.layers * (FLOAT * shape.d_model if self.on_gpu else block) + 2 * block
        copies = shape.parameters * 2 if self.value < FLOAT else 0
        return {
            "weights, gradients, moments": TUNED * shape.parameters + copies,
            "activations": tokens * kept,
            "gradient of the LM head": FLOAT * shape.d_model * shape.vocabulary,
        }

    def sampling(
        self,
        sequences: float,
        batch: float,
        prompt: float,
        length: float,
        *,
        weight: int | None = None,
        recorded: bool = False,
        shape: Shape | None = None,
    ) -> Part:
        """Completions of `length` tokens after prompts, `batch` sequences at a time; each new token of a batch reads
        all weights, and the cached keys and values of every sequence.

        `weight`: bytes of a stored weight, which may be wider than the products. `recorded`: blocks are not started one
        by one, but as a graph that was recorded before.
        """
        shape, steps, attended = shape or self.shape, sequences / batch * length, prompt + length / 2
        cached = batch * attended * shape.cached_values * self.value
        return self.work(
            sequences * (length * shape.forward(attended) + prompt * shape.forward(prompt / 2)),
            moved=steps * (shape.parameters * (weight or self.value) + cached),
            calls=0 if recorded else steps * shape.layers,
            bf16=self.value < FLOAT,
        )

    def coding(self, size: CrosscoderSize, tokens: float) -> Part:
        """Encode and decode so many tokens, densely."""
        layer = 2.0 * size.hidden * (size.width + size.features)
        products = self.work(tokens * (4.0 * size.features * size.width + layer), of="crosscoder")
        return products + self.elementwise(CODED_BYTES * tokens * size.features)

    def matching(self, size: CrosscoderSize, times: int) -> Part:
        """Cosines of all features of two dictionaries, so many times; the assignment is not counted."""
        return self.work(2.0 * times * size.features**2 * size.width, of="crosscoder")

    def elementwise(self, written: float) -> Part:
        """So many bytes written into new tensors."""
        return Part(seconds=written / self.hardware.fresh)

    def loading(self, models: float, weights: float | None = None) -> Part:
        """So many models read from the disk; `weights`: bytes of each, by default of a whole one."""
        each = (self.whole if weights is None else weights) / self.hardware.disk
        return Part(seconds=models * (self.hardware.load + each))

    def loading_below(self, names: tuple[str, ...]) -> Part:
        """Models read from the disk up to the hook point."""
        return self.loading(self.distinct(names), self.shape.below(self.layers) * self.value)

    def items(self, task: TaskSettings) -> int:
        """Items of a task that are evaluated."""
        count = self.assumed.items_of(task.name)
        return min(count, self.plan.study.evaluation.limit_of(task.name) or count)

    def requests(self, items: float) -> Part:
        """Items of tasks built and tokenised, with each of their choices."""
        return Part(seconds=items * self.assumed.choices * self.hardware.row)

    def answers(self, models: int, limit: int | None = None) -> Part:
        """So many models, each read from the disk, on the tasks of the study, on at most `limit` items of each."""
        evaluation, length = self.plan.study.evaluation, self.assumed.item_tokens
        items = {task: min(self.items(task), limit or self.items(task)) for task in evaluation.tasks}
        chosen = sum(count for task, count in items.items() if not task.generates)
        rows = self.assumed.choices * models * chosen
        read = self.forward(rows * length, length, rows / evaluation.batch_size)
        written = (self.generation(task, models * items[task]) for task in items if task.generates and models)
        return sum(written, read + self.loading(models) + self.requests(models * chosen))

    def generation(self, task: TaskSettings, items: int) -> Part:
        """All repetitions of the answers to so many items of a task."""
        count = items * (task.repeats or 1)
        batch = min(self.plan.study.evaluation.batch_size, count)
        return self.sampling(count, batch, self.assumed.item_tokens, self.answer_tokens(task))

    def answer_tokens(self, task: TaskSettings) -> int:
        """Tokens of a generated answer."""
        return min(task.max_new_tokens or UNLIMITED, self.assumed.completion_tokens)

    def reading_memory(
        self,
        names: tuple[str, ...],
        sizes: Sequence[CrosscoderSize],
        tokens: float,
        *,
        whole: int = 0,
        coded: float = 0.0,
        logits: float = 0.0,
    ) -> Bytes:
        """Memory of an analysis that reads `tokens` at once: models up to the hook point and so many whole ones,
        crosscoders, a pass with its residual streams, features of the tokens `coded`, and bytes of a logit."""
        streams = FLOAT * len(names) * self.shape.d_model
        return {
            "models up to the tap": self.below(names) if names else 0.0,
            "whole models": whole * self.whole,
            "crosscoders": sum(size.file_bytes for size in sizes),
            "forward pass": self.forward_bytes(tokens) + tokens * streams,
            "features": max((size.coding_bytes(ceil(coded)) for size in sizes), default=0),
            "logits": tokens * self.shape.vocabulary * logits,
        }

    def fit(self, lineup: tuple[str, ...], names: tuple[str, ...], tokens: int) -> Part:
        """Fit of the crosscoders `names` on so many tokens, which `lineup` reads once.

        On those that fit the buffer, the models of crosscoders that stand for themselves run on to their logits: as
        they are, on the reconstruction, and on the mean activation.
        """
        study, context = self.plan.study, self.plan.study.corpus.context
        models, spliced = self.distinct(lineup), min(tokens, self.room(lineup))
        in_pass = study.activations.batch_size * context
        found = self.below_tap(models * tokens, context, models * tokens / in_pass)
        calls = spliced / self.spliced_at_once(in_pass, context)
        for name in names:
            one, stands = self.plan.crosscoders[name], name in self.plan.lineups
            found += self.coding(self.size(one), tokens + spliced if stands else tokens)
            if stands:
                passes = 3 * len(one.models)
                found += self.above_tap(passes * spliced, context, passes * calls, head=True)
                found += self.elementwise(len(one.models) * spliced * self.shape.vocabulary * LOGIT_BYTES)
                found += self.loading(len(one.models))
        return found


def cost_inputs(study: Study, kind: str | None, gpus: int, assumed: Assumptions) -> CostInputs:
    """All that the estimate of a study needs. ValueError where the shape of a model is not known, for devices that do
    not exist, and where the features cannot be divided among them."""
    if gpus % study.training.feature_shards:
        raise ValueError(
            f"training.feature_shards is {study.training.feature_shards}, which does not divide --gpus {gpus}"
        )
    sizes, hardware = sizes_of(Plan(study)), hardware_of(study, kind, gpus)
    teacher = study.posttrain.teacher_model if study.posttrain else None
    return CostInputs(
        plan=sizes.plan,
        shape=sizes.shape,
        layers=sizes.layers,
        devices=hardware.devices,
        on_gpu=hardware.on_gpu,
        hardware=hardware,
        assumed=assumed,
        teacher=base_shape(study, teacher) if teacher else None,
    )
