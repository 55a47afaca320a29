"""Sizes of a study before it runs: its models and crosscoders in bytes, its buffer in tokens, and its memory."""

from dataclasses import dataclass, replace
from importlib.resources import files
from math import ceil

from featdiff.config.study import Study
from featdiff.config.study_file import DEMO_PREFIX
from featdiff.crosscoder.sizes import FLOAT, CrosscoderSize
from featdiff.models.logits import LOGIT_BYTES, rows_at_once
from featdiff.models.shapes import Shape, shape_of
from featdiff.run.plan import CrosscoderPlan, Plan

MIB = 2**20
Bytes = dict[str, float]


@dataclass(frozen=True)
class StudySizes:
    """A study and the shape of its models; all that follows from these alone."""

    plan: Plan
    shape: Shape
    layers: int  # blocks below the hook point
    devices: int = 1  # devices that train together
    on_gpu: bool = False

    @property
    def value(self) -> int:
        """Bytes of a weight or activation of the models."""
        return FLOAT if self.plan.study.lineup.dtype == "float32" else 2

    @property
    def whole(self) -> float:
        """Bytes of one whole model."""
        return self.shape.parameters * self.value

    @property
    def groups(self) -> int:
        """Groups of devices that divide the tokens; those of a group divide the features."""
        return max(1, self.devices // self.plan.study.training.feature_shards)

    def distinct(self, names: tuple[str, ...]) -> int:
        """Number of models behind names: a folder that has two names is loaded and run once."""
        return len({self.plan.paths[name] for name in names})

    def below(self, names: tuple[str, ...]) -> float:
        """Bytes of models up to the hook point, on the device that holds the crosscoders too."""
        settings = self.plan.study.lineup
        here = tuple(name for name in names if settings.devices.get(name, settings.device) == settings.device)
        models = min(1, len(here)) if settings.turns and self.on_gpu else self.distinct(here)
        return models * self.shape.below(self.layers) * self.value

    def size(self, one: CrosscoderPlan) -> CrosscoderSize:
        """Size of a crosscoder of the study."""
        hidden = one.encoder.width if one.encoder.kind == "mlp" else 0
        return CrosscoderSize(len(one.models), self.shape.d_model, one.features, hidden)

    @property
    def sizes(self) -> list[CrosscoderSize]:
        """Sizes of all crosscoders of the study."""
        return [self.size(one) for one in self.plan.crosscoders.values()]

    def room(self, names: tuple[str, ...]) -> int:
        """Tokens whose residual streams the buffer of the study holds."""
        return self.plan.study.activations.buffer_mib * MIB // (FLOAT * len(names) * self.shape.d_model)

    @property
    def buffered(self) -> int:
        """Tokens of the corpus that the shuffle buffer holds beside a batch; a row of it at least."""
        study = self.plan.study
        room = self.room(self.plan.harvested) - study.training.batch_size
        return max(study.corpus.context, min(room, study.corpus.tokens))

    @property
    def tokens_per_pass(self) -> int:
        """Tokens that a model harvests in one call."""
        study = self.plan.study
        return study.corpus.context * min(study.activations.batch_size, self.buffered // study.corpus.context)

    def spliced_at_once(self, tokens: int, positions: int) -> int:
        """Tokens whose logits are held together: whole rows, as many as `models.logits` allows."""
        return min(tokens, positions * rows_at_once(positions, self.shape.vocabulary))

    def reading_memory(
        self, models: tuple[str, ...], crosscoders: tuple[str, ...], tokens: int, *, whole: int = 0, logits: float = 0.0
    ) -> Bytes:
        """Memory of a forward pass over `tokens` without gradients: models up to the hook point and so many whole ones,
        crosscoders with the features of those tokens, and so many rows of logits."""
        sizes = [self.size(self.plan.crosscoders[name]) for name in crosscoders]
        values = self.shape.block_values * self.value + FLOAT * len(models) * self.shape.d_model
        return {
            "models up to the tap": self.below(models),
            "whole models": whole * self.whole,
            "crosscoders": sum(size.file_bytes for size in sizes),
            "forward pass": tokens * values,
            "features": max((size.coding_bytes(tokens) for size in sizes), default=0),
            "logits": logits * self.shape.vocabulary * LOGIT_BYTES / 3,  # which are those of three passes
        }

    def while_training(self) -> Bytes:
        """Memory of one device while crosscoders learn from the stream."""
        names, batch = self.plan.harvested, self.plan.study.training.batch_size
        shards = self.plan.study.training.feature_shards
        sizes = [replace(size, features=ceil(size.features / shards)) for size in self.sizes]
        stream = FLOAT * len(names) * self.shape.d_model
        return {
            "models up to the tap": self.below(names),
            "forward pass": self.tokens_per_pass * (self.shape.block_values * self.value + 2 * stream),
            "shuffle buffer": (self.buffered + batch) * stream,
            "crosscoders, gradients, moments": sum(size.training_bytes for size in sizes),
            "a step": max(size.step_bytes(ceil(batch / self.groups)) for size in sizes),
        }

    def while_measuring(self) -> Bytes:
        """Memory while their fit is measured: whole models, and the crosscoders as trained and as read again."""
        study, names = self.plan.study, tuple(self.plan.crosscoders)
        tokens = min(self.tokens_per_pass, study.corpus.held_out_tokens)
        logits = 3 * self.spliced_at_once(tokens, study.corpus.context)
        return self.reading_memory(self.plan.harvested, names + names, tokens, whole=1, logits=logits)


def sizes_of(plan: Plan) -> StudySizes:
    """The sizes of a study. ValueError where the shape of its base is not known, or it lacks the study's layer."""
    settings = plan.study.lineup
    shape = base_shape(plan.study, settings.base)
    layers = settings.layer or max(1, shape.layers // 2)
    if layers > (deep := shape.layers):
        raise ValueError(f"lineup.layer is {layers}, but the base has {deep} blocks; choose 1..{deep}, or leave it out")
    return StudySizes(plan, shape, layers, on_gpu=settings.device != "cpu")


def base_shape(study: Study, path: str) -> Shape:
    """The shape of a model that the study is given; what begins with `demo:` is in the package."""
    if path.startswith(DEMO_PREFIX):
        path = str(files("featdiff.demo") / path.removeprefix(DEMO_PREFIX))
    return shape_of(path, trust_remote_code=study.lineup.trust_remote_code)


def fullest(*moments: Bytes) -> Bytes:
    """The moment of a stage at which most memory is held."""
    return max(moments, key=lambda memory: sum(memory.values()))
