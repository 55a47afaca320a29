"""Sizes of a study before it runs: its models and crosscoders in bytes, its buffer in tokens, and the memory that
training needs at its fullest."""

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
CORPUS_BYTES = 9
"""In the host's memory, per token: as it was read, packed, and the starts of documents."""
Bytes = dict[str, float]


@dataclass(frozen=True)
class StudySizes:
    """A study and the shape of its models; all that follows from these alone."""

    plan: Plan
    shape: Shape
    layers: int
    """Blocks below the hook point."""
    devices: int = 1
    """Devices that train together."""
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
    def shards(self) -> int:
        """Devices among which the features of a crosscoder are divided."""
        return self.plan.study.training.feature_shards

    @property
    def groups(self) -> int:
        """Groups of such devices, among which the tokens are divided."""
        return max(1, self.devices // self.shards)

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
        return CrosscoderSize(
            len(one.models),
            self.shape.d_model,
            one.features,
            thresholds=one.sparsity.kind == "jumprelu",
            hidden=one.encoder.width if one.encoder.kind == "mlp" else 0,
        )

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

    def forward_bytes(self, tokens: float) -> float:
        """Memory of a forward pass without gradients, without the weights and the logits."""
        return tokens * self.shape.block_values * self.value

    def spliced_at_once(self, tokens: int, positions: int) -> int:
        """Tokens whose logits are held together: whole rows, as many as `models.logits` allows."""
        return min(tokens, positions * rows_at_once(positions, self.shape.vocabulary))

    def splicing_memory(self, tokens: int, positions: int) -> Bytes:
        """Memory of one whole model whose logits are compared on rows of `positions` tokens."""
        in_pass = self.spliced_at_once(tokens, positions)
        return {
            "a whole model": self.whole,
            "forward pass": self.forward_bytes(in_pass),
            "logits": in_pass * self.shape.vocabulary * LOGIT_BYTES,
        }

    def while_training(self) -> Bytes:
        """Memory of one device while crosscoders learn from the stream."""
        study, names, batch = self.plan.study, self.plan.harvested, self.plan.study.training.batch_size
        sizes = [replace(size, features=ceil(size.features / self.shards)) for size in self.sizes]
        stream = FLOAT * len(names) * self.shape.d_model
        memory = {
            "models up to the tap": self.below(names),
            "forward pass": self.forward_bytes(self.tokens_per_pass) + 2 * self.tokens_per_pass * stream,
            "shuffle buffer": (self.buffered + batch) * stream,
            "crosscoders, gradients, moments": sum(size.training_bytes for size in sizes),
            "a step": max(size.step_bytes(ceil(batch / self.groups)) for size in sizes),
        }
        if not self.on_gpu:
            memory["screens"] = sum(size.screen_bytes for size in sizes)
            memory["corpus"] = CORPUS_BYTES * (study.corpus.tokens + study.corpus.held_out_tokens)
        return memory

    def while_measuring(self) -> Bytes:
        """Memory while their fit is measured: whole models, and the crosscoders as trained and as read again."""
        study = self.plan.study
        tokens = min(study.activations.batch_size * study.corpus.context, study.corpus.held_out_tokens)
        held: Bytes = {
            "models up to the tap": self.below(self.plan.harvested),
            "crosscoders": 2 * sum(size.file_bytes for size in self.sizes),
        }
        features = max(size.coding_bytes(tokens) for size in self.sizes)
        splicing = self.splicing_memory(tokens, study.corpus.context)
        return fullest({**held, "features of held-out tokens": features}, held | splicing)


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
