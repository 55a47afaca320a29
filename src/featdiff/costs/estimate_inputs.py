"""What an estimate stands on, and what the estimate of one stage says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from featdiff.config.study import Study, TaskSettings
from featdiff.costs.costs import FLOAT, CrosscoderSize, Model
from featdiff.costs.hardware import Hardware, Work, hardware_of
from featdiff.costs.options import Numbers, PlanOptions
from featdiff.costs.shapes import shape_of
from featdiff.costs.workload import Assumptions, assumptions_of
from featdiff.models.logits import LOGIT_BYTES, rows_at_once
from featdiff.run.plan import CrosscoderPlan, Plan

MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """What a stage asks for, before it meets devices."""

    parts: Mapping[str, Sequence[Work]] = field(default_factory=dict)
    """What is computed, by its name; a single part needs none of its own."""
    memory: Mapping[str, float] = field(default_factory=dict)
    """Bytes on one device at its fullest, by what holds them."""
    stays: float = 0.0
    """Bytes on the disk once the stage is done."""
    passing: float = 0.0
    """More bytes on the disk at most, while it runs."""


@dataclass(frozen=True)
class Ground:
    """A study, the shapes of its models, the devices, and what had to be assumed."""

    plan: Plan
    model: Model
    teacher: Model | None
    layers: int
    """Blocks below the tap."""
    hardware: Hardware
    assumed: Assumptions

    @property
    def on_gpu(self) -> bool:
        """Whether the devices are accelerators."""
        return not self.hardware.kind.startswith("cpu")

    @property
    def shards(self) -> int:
        """Devices among which the features of a crosscoder are divided."""
        return self.plan.study.training.feature_shards

    @property
    def groups(self) -> int:
        """Groups of such devices, among which the tokens are divided."""
        return max(1, self.hardware.devices // self.shards)

    @property
    def whole(self) -> float:
        """Bytes of one whole model."""
        return self.model.shape.parameters * self.model.value

    @property
    def harvested(self) -> tuple[str, ...]:
        """The models that some crosscoder reads, as the stream has them."""
        return self.plan.harvested

    def distinct(self, names: tuple[str, ...]) -> int:
        """Number of models behind names: a folder that has two names is loaded and run once."""
        return len({self.plan.paths[name] for name in names})

    def below(self, names: tuple[str, ...]) -> float:
        """Bytes of models up to the tap, on the device that holds the crosscoders too."""
        settings = self.plan.study.lineup
        here = tuple(name for name in names if settings.devices.get(name, settings.device) == settings.device)
        models = min(1, len(here)) if settings.turns and self.on_gpu else self.distinct(here)
        return models * self.model.shape.below(self.layers) * self.model.value

    def size(self, one: CrosscoderPlan) -> CrosscoderSize:
        """Size of a crosscoder of the study."""
        return CrosscoderSize(
            len(one.models),
            self.model.shape.d_model,
            one.features,
            thresholds=one.sparsity.kind == "jumprelu",
            hidden=one.encoder.width if one.encoder.kind == "mlp" else 0,
        )

    def room(self, names: tuple[str, ...]) -> int:
        """Tokens whose streams the buffer of the study holds."""
        return self.plan.study.activations.buffer_mib * MIB // (FLOAT * len(names) * self.model.shape.d_model)

    @property
    def buffered(self) -> int:
        """Tokens of the corpus that the shuffle buffer holds beside a batch; a row of it at least."""
        study = self.plan.study
        room = self.room(self.harvested) - study.training.batch_size
        return max(study.corpus.context, min(room, study.corpus.tokens))

    def items(self, task: TaskSettings) -> int:
        """Items of a task that are evaluated."""
        count = self.assumed.items_of(task.name)
        return min(count, self.plan.study.evaluation.limit_of(task.name) or count)

    def splicing_memory(self, tokens: int, positions: int) -> dict[str, float]:
        """Of one whole model whose logits are compared: at most so many tokens, in rows of so many positions."""
        in_pass = self.spliced_at_once(tokens, positions)
        return {
            "a whole model": self.whole,
            "forward pass": self.model.forward_bytes(in_pass),
            "logits": in_pass * self.model.shape.vocabulary * LOGIT_BYTES,
        }

    def spliced_at_once(self, tokens: int, positions: int) -> int:
        """Tokens whose logits are held together: whole rows, as many as `pipeline.logits` allows."""
        return min(tokens, positions * rows_at_once(positions, self.model.shape.vocabulary))


def ground_of(study: Study, options: PlanOptions) -> Ground:
    """All that the estimate of a study needs. ValueError where the shape of a model is neither known nor given."""
    plan, posttrain = Plan(study), study.posttrain
    teacher_model = posttrain.teacher_model if posttrain else None
    model = _model(study, study.lineup.base, options.shape)
    layers, deep = study.lineup.layer or max(1, model.shape.layers // 2), model.shape.layers
    if layers > deep:
        raise ValueError(f"lineup.layer is {layers}, but the base has {deep} blocks; choose 1..{deep}, or leave it out")
    return Ground(
        plan=plan,
        model=model,
        teacher=_model(study, teacher_model, options.teacher_shape) if teacher_model else None,
        layers=layers,
        hardware=hardware_of(study, options.kind, options.gpus, options.hardware),
        assumed=assumptions_of(plan, options.assume),
    )


def _model(study: Study, path: str, shape: Numbers) -> Model:
    known = shape_of(path, shape)
    return Model(known.shape, "fp32" if study.lineup.dtype == "float32" else "bf16", known.origin)


def fullest(*moments: dict[str, float]) -> dict[str, float]:
    """The moment of a stage at which most memory is held."""
    return max(moments, key=lambda memory: sum(memory.values()))
