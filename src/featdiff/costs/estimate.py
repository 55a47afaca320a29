"""Cost of a stage, and the primitives that it is summed from: forward passes, edits, tuning, sampling, coding.

A stage's own `cost(inputs)` stands in its folder. A piece of work takes as long as what binds it: its products, the
bytes that it moves or sends, or its calls. Aimed at is a factor of 2.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from featdiff.config.study import Study, TaskSettings
from featdiff.costs.assumptions import Assumptions
from featdiff.costs.hardware import Hardware, hardware_of
from featdiff.crosscoder.sizes import FLOAT, CrosscoderSize
from featdiff.models.shapes import Shape
from featdiff.run.plan import Plan
from featdiff.run.sizes import StudySizes, base_shape, sizes_of

BANDWIDTH_SHARE = 0.9  # share of the bandwidth, and of the link, that is reached
LOAD = 0.2  # seconds to load a model, beyond reading its weights
ITEM = 0.001  # seconds to build and tokenise an item of a task
EDIT_CALLS = 300  # calls of a block that take as long as a batch of edits, beyond its forward pass; fitted to the demo
UNLIMITED = 32_768  # tokens of a generated answer where the study sets no limit: that of lm-eval's AIME


@dataclass(frozen=True)
class Work:
    """Something that is computed: FLOPs on all devices, and seconds."""

    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.seconds + other.seconds)

    def shared(self, devices: int) -> "Work":
        """The same on so many devices that divide it evenly."""
        return Work(self.flops, self.seconds / devices)


@dataclass(frozen=True)
class Cost:
    """What a stage takes."""

    work: Work = Work()
    memory: Mapping[str, float] = field(default_factory=dict[str, float])
    """Bytes on one device at its fullest, by what holds them; empty where next to nothing is computed."""
    stays: float = 0.0  # bytes on the disk once the stage is done
    passing: float = 0.0  # more bytes on the disk at most, while it runs

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
    def tasks(self) -> list[TaskSettings]:
        """Tasks of choices."""
        return [task for task in self.plan.study.evaluation.tasks if not task.generates]

    def items(self, task: TaskSettings) -> int:
        """Items of a task that are evaluated."""
        count = self.assumed.items_of(task.name)
        return min(count, self.plan.study.evaluation.limit_of(task.name) or count)

    def work(
        self, flops: float = 0.0, moved: float = 0.0, sent: float = 0.0, calls: float = 0.0, *, bf16: bool = False
    ) -> Work:
        """FLOPs of a language model on one device, while bytes are moved or sent and blocks are called."""
        device = self.hardware
        rate = device.model_share * (device.bf16 if bf16 else device.fp32)
        carried = max(moved / device.bandwidth, sent / device.link) / BANDWIDTH_SHARE
        return Work(flops, max(flops / rate, carried, calls * device.call))

    def products(self, flops: float, moved: float = 0.0, *, bf16: bool = False) -> Work:
        """FLOPs of a crosscoder's products on one device, while bytes are moved."""
        rate = self.hardware.product_share * (self.hardware.bf16 if bf16 else self.hardware.fp32)
        return Work(flops, max(flops / rate, self.work(moved=moved).seconds))

    def forward(
        self, tokens: float, attended: float, at_once: float, *, layers: int | None = None, head: bool | None = None
    ) -> Work:
        """Forward pass of tokens, so many `at_once`, that each attend to `attended` others, through `layers` blocks
        (None: all), and the LM head; unless it is given, that is left out where not all blocks are passed."""
        blocks = self.shape.layers if layers is None else layers
        flops = tokens * self.shape.forward(attended, layers=blocks, head=layers is None if head is None else head)
        return self.work(flops, calls=tokens / at_once * blocks, bf16=self.value < FLOAT)

    def read(self, models: int, tokens: float, length: int, at_once: float) -> Work:
        """Load so many models and run each up to the hook point over so many tokens, in texts of `length`."""
        loaded = self.loading(models, self.shape.below(self.layers) * self.value)
        return loaded + self.forward(models * tokens, length, at_once, layers=self.layers)

    def edits(self, sequences: float, layers: int | None = None) -> Work:
        """Edit so many sequences of choices and run them through `layers` blocks; None: those above the hook point."""
        batch, length = self.plan.study.intervention.batch_size, self.assumed.item_tokens
        above = self.shape.layers - self.layers if layers is None else layers
        overhead = Work(seconds=EDIT_CALLS * self.hardware.call * sequences / batch)
        return overhead + self.forward(sequences * length, length, batch * length, layers=above)

    def sampling(
        self, sequences: float, batch: float, prompt: float, length: float, shape: Shape | None = None
    ) -> Work:
        """Completions of `length` tokens, `batch` at a time; each token of a batch reads all weights and its cache."""
        shape, steps, attended = shape or self.shape, sequences / batch * length, prompt + length / 2
        cached = batch * attended * shape.cached_values * self.value
        flops = sequences * (length * shape.forward(attended) + prompt * shape.forward(prompt / 2))
        moved = steps * (shape.parameters * self.value + cached)
        return self.work(flops, moved, calls=steps * shape.layers, bf16=self.value < FLOAT)

    def coding(self, size: CrosscoderSize, tokens: float) -> Work:
        """Encode and decode so many tokens, densely."""
        return self.products(2.0 * tokens * size.weights)

    def matching(self, size: CrosscoderSize, times: float) -> Work:
        """Cosines of all features of two dictionaries, so many times; the assignment is not counted."""
        return self.products(2.0 * times * size.features**2 * size.width)

    def requests(self, tasks: Iterable[TaskSettings]) -> Work:
        """Build and tokenise the items of tasks."""
        return Work(seconds=ITEM * sum(map(self.items, tasks)))

    def loading(self, models: float, weights: float | None = None) -> Work:
        """So many models read from the disk; `weights`: bytes of each, by default of a whole one."""
        return Work(seconds=models * (LOAD + (self.whole if weights is None else weights) / self.hardware.disk))

    def answers(self, models: int, limit: int | None = None) -> Work:
        """So many models, each read from the disk, on the tasks of the study, on at most `limit` items of each."""
        length, found = self.assumed.item_tokens, self.loading(models) + self.requests(self.tasks)
        for task in self.plan.study.evaluation.tasks if models else ():
            items = min(self.items(task), limit or self.items(task))
            if task.generates:
                found += self.generation(task, models * items)
            else:
                tokens = models * items * self.assumed.choices * length
                found += self.forward(tokens, length, self.plan.study.evaluation.batch_size * length)
        return found

    def generation(self, task: TaskSettings, items: int) -> Work:
        """All repetitions of the answers to so many items of a task."""
        count = items * (task.repeats or 1)
        batch = min(self.plan.study.evaluation.batch_size, count)
        return self.sampling(count, batch, self.assumed.item_tokens, self.answer_tokens(task))

    def answer_tokens(self, task: TaskSettings) -> int:
        """Tokens of a generated answer."""
        return min(task.max_new_tokens or UNLIMITED, self.assumed.completion_tokens)

    def fit(self, models: tuple[str, ...], crosscoders: tuple[str, ...], tokens: int) -> Work:
        """Fit of crosscoders on so many tokens: those that stand for themselves are spliced into each of their models,
        which runs on from the hook point three times: as it is, on the reconstruction, on the mean activation."""
        context, in_pass = self.plan.study.corpus.context, self.tokens_per_pass
        spliced, found = min(tokens, self.room(models)), self.read(self.distinct(models), tokens, context, in_pass)
        for name in crosscoders:
            one = self.plan.crosscoders[name]
            found += self.coding(self.size(one), tokens)
            if name in self.plan.lineups:
                passes, above = 3 * len(one.models), self.shape.layers - self.layers
                found += self.forward(passes * spliced, context, in_pass, layers=above, head=True)
                found += self.loading(len(one.models))
        return found


def cost_inputs(study: Study, kind: str | None, gpus: int, assumed: Assumptions) -> CostInputs:
    """All that the estimate of a study needs. ValueError for a model of unknown shape, and devices that cannot be."""
    if gpus % (shards := study.training.feature_shards):
        raise ValueError(f"training.feature_shards is {shards}, which does not divide --gpus {gpus}")
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
