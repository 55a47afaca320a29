"""Loading models: whole, cut off above the hook point, and as a lineup of several that share one tokenizer.

The hook point lies after block `layers`, counted from 1. What lies above it is neither loaded nor run.

Weights on the CPU are memory-mapped where the lineup's precision is that of their file: they take memory only while
they are read, and the system may drop them at any time.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from featdiff.models.logging import quiet_transformers
from featdiff.models.paths import identity, location, one_line, refuse_absent, refuse_corrupted
from featdiff.models.residual import residual
from featdiff.models.tokenizer import Tokenizer, common_tokenizer
from featdiff.models.tokenizer import load_tokenizer as load_tokenizer

CPU = torch.device("cpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FLASH = "flash_attention_2"


@dataclass(frozen=True)
class Lineup:
    """Named models over one tokenizer, each cut off after `layers` blocks; the base comes first."""

    names: tuple[str, ...]
    models: tuple[PreTrainedModel, ...]
    tokenizer: Tokenizer
    layers: int
    d_model: int
    device: torch.device = CPU
    """Where the residual streams of all models come together."""
    turns: bool = False
    """Whether the models wait on the CPU, each on `device` only while it runs."""
    sources: Mapping[str, "ModelSource | PreTrainedModel"] = field(default_factory=dict)
    """Where the whole models lie, or those that were given as modules, by name."""

    @staticmethod
    def load(
        paths: dict[str, str],
        *,
        layer: int | None,
        dtype: str = "float32",
        device: str = "cpu",
        devices: Mapping[str, str] = MappingProxyType({}),
        turns: bool = False,
        held: tuple[str, ...] | None = None,
        attention: str = "auto",
        trust_remote_code: bool = False,
    ) -> "Lineup":
        """Load the models at `paths` (folders or hub ids, by name) up to block `layer`; None: the middle of the first.

        `devices` holds the devices of single models by name, `device` that of the others and of the residual streams;
        with `turns`, models wait on the CPU, and each is on `device` only while it runs. A folder that occurs under two
        names is loaded once, for the first of them. Where `held` names some of the models, the lineup is of these, but
        all are checked. `attention` is a name of transformers, or auto: flash attention
        where it is installed, on CUDA in half precision, else transformers' choice (SDPA, if the model has it).

        Raises ValueError for a missing or broken model, for models with different tokenizers, widths or vocabularies,
        for a layer that a model does not have, and for a device or an attention that cannot be used here.
        """
        assert paths, "a lineup holds at least one model"
        configs = {name: _config(path, trust_remote_code) for name, path in paths.items()}
        _same_shape(configs)
        tokenizer = common_tokenizer(paths, trust_remote_code)
        layers = _middle(next(iter(configs.values()))) if layer is None else layer
        for name, config in configs.items():
            _has_layer(config, layers, name)
        loaded: dict[str, PreTrainedModel] = {}
        here = {name: path for name, path in paths.items() if held is None or name in held}
        for name, path in here.items():
            if identity(path) not in loaded:
                place = devices.get(name, device)
                loaded[identity(path)] = load_truncated(
                    path,
                    layers,
                    dtype=dtype,
                    device="cpu" if turns else place,
                    attention=attention_of(attention, dtype, place),
                    trust_remote_code=trust_remote_code,
                )
        return Lineup(
            names=tuple(here),
            models=tuple(loaded[identity(path)] for path in here.values()),
            tokenizer=tokenizer,
            layers=layers,
            d_model=next(iter(configs.values())).get_text_config().hidden_size,
            device=_device(device),
            turns=turns,
            sources={
                name: ModelSource(path, dtype, devices.get(name, device), trust_remote_code)
                for name, path in here.items()
            },
        )

    @staticmethod
    def around(models: Mapping[str, PreTrainedModel], tokenizer: Tokenizer, *, layer: int | None) -> "Lineup":
        """Make a lineup of whole models that are loaded. ValueError as `load`, and for a model in training mode."""
        configs = {name: model.config for name, model in models.items()}
        _same_shape(configs)
        first, *_ = models.values()
        layers = _middle(first.config) if layer is None else layer
        for name, model in models.items():
            _has_layer(model.config, layers, name)
            if model.training:
                raise ValueError(f"model {name!r} is in training mode; call its eval() first")
        d_model, device = first.config.get_text_config().hidden_size, first.device
        return Lineup(tuple(models), tuple(models.values()), tokenizer, layers, d_model, device, sources=dict(models))

    def __getitem__(self, name: str) -> "LineupModel":
        """One of the models, whole. Raises ValueError for a name that the lineup lacks."""
        self._holds((name,))
        return LineupModel(self, name)

    def of(self, names: Sequence[str]) -> "Lineup":
        """The lineup of these models alone, in this order. Raises ValueError for a name that it lacks."""
        self._holds(names)
        models = tuple(self.models[self.names.index(name)] for name in names)
        return replace(self, names=tuple(names), models=models)

    def residuals(
        self,
        input_ids: Int[Tensor, "batch positions"],
        attention_mask: Int[Tensor, "batch positions"] | None = None,
        position_ids: Int[Tensor, "batch positions"] | None = None,
    ) -> Float[Tensor, "batch positions models d_model"]:
        """The residual streams of all models on the same tokens, float32, on `device`.

        Without an attention mask, position ids that start again at 0 mark packed documents, and attention stays inside
        each. Raises ValueError for more positions than a model has.
        """
        room = torch.empty(*input_ids.shape, len(self.names), self.d_model, device=self.device)
        self.fill(room, input_ids, attention_mask, position_ids, batch_size=len(input_ids))
        return room

    def fill(
        self,
        room: Float[Tensor, "batch positions models d_model"],
        input_ids: Int[Tensor, "batch positions"],
        attention_mask: Int[Tensor, "batch positions"] | None = None,
        position_ids: Int[Tensor, "batch positions"] | None = None,
        *,
        batch_size: int,
    ) -> None:
        """Write `residuals` into `room`: model after model, each over all sequences, `batch_size` at a time."""
        self._fits(input_ids.shape[1])
        first_of: dict[int, int] = {}
        for index, model in enumerate(self.models):
            twin = first_of.setdefault(id(model), index)
            if twin != index:
                room[:, :, index] = room[:, :, twin]
                continue
            with self._brought(model), torch.inference_mode():
                for start in range(0, len(input_ids), batch_size):
                    rows = slice(start, start + batch_size)
                    optional = (None if ids is None else ids[rows] for ids in (attention_mask, position_ids))
                    room[rows, :, index] = residual(model, self.layers, input_ids[rows], *optional)

    @contextmanager
    def _brought(self, model: PreTrainedModel) -> Generator[None]:
        """The model on the lineup's device. One that takes turns is copied there; its own weights wait untouched."""
        if not self.turns:
            yield
            return
        tensors = [*model.parameters(), *model.buffers()]
        waiting = [tensor.data for tensor in tensors]
        try:
            for tensor in tensors:
                tensor.data = tensor.data.to(self.device)
            yield
        finally:
            for tensor, own in zip(tensors, waiting, strict=True):
                tensor.data = own

    def _holds(self, names: Sequence[str]) -> None:
        if missing := [name for name in names if name not in self.names]:
            raise ValueError(f"the lineup holds {list(self.names)}, not {', '.join(missing)}; load those models too")

    def _fits(self, positions: int) -> None:
        for name, model in zip(self.names, self.models, strict=True):
            text = model.config.get_text_config()
            longest = getattr(text, "max_position_embeddings", None)  # ALiBi models have no such limit
            if longest is not None and positions > longest:
                raise ValueError(
                    f"sequences of {positions} tokens exceed the {longest} positions of model {name!r}; "
                    f"set corpus.context to at most {longest}"
                )


@dataclass(frozen=True, eq=False)
class LineupModel:
    """One model of a lineup: `models["rl"]`."""

    lineup: Lineup
    name: str

    def whole(self) -> PreTrainedModel:
        """The whole model, LM head included: read from its folder at every call, or the module that was given."""
        match self.lineup.sources.get(self.name):
            case ModelSource() as source:
                return source.model()
            case None:
                raise ValueError(f"the lineup does not say where {self.name!r} lies whole; make it with load_models")
            case model:
                return model


@dataclass(frozen=True)
class ModelSource:
    """Where a whole model lies, a folder or a hub id, and how it is loaded."""

    path: str
    dtype: str = "float32"
    """A key of `DTYPES`."""
    device: str = "cpu"
    trust_remote_code: bool = False

    def model(self) -> PreTrainedModel:
        """The model, as by `load_model`."""
        trust = self.trust_remote_code
        return load_model(self.path, dtype=self.dtype, device=self.device, trust_remote_code=trust)

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer. ValueError as `load_tokenizer`."""
        return load_tokenizer(self.path, trust_remote_code=self.trust_remote_code)


def load_model(
    path: str, *, dtype: str = "float32", device: str = "cpu", trust_remote_code: bool = False
) -> PreTrainedModel:
    """Load a whole causal language model, in evaluation mode, frozen. Raises ValueError as `load_truncated`."""
    config = _config(path, trust_remote_code)
    return _load(AutoModelForCausalLM, path, config, dtype, device, trust_remote_code)


def load_truncated(
    path: str,
    layers: int,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    attention: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load embeddings and the first `layers` blocks of a model; the other blocks and the LM head stay on the disk.

    `attention` is an implementation of transformers, None its choice. Raises ValueError for an absent, unknown,
    incomplete or corrupted model, for a layer out of 1..L, and for an attention that the model does not have.
    """
    config = _config(path, trust_remote_code)
    _has_layer(config, layers, path)
    model = _load(AutoModel, path, _cut(config, layers), dtype, device, trust_remote_code)
    if attention is not None:
        with one_line(f"cannot run the model {path} with lineup.attention = {attention}"), quiet_transformers():
            model.set_attn_implementation(attention)
    return model


def depth(path: str, *, trust_remote_code: bool = False) -> int:
    """Number of blocks of the model at `path`."""
    return _depth(_config(path, trust_remote_code))


@dataclass(frozen=True)
class ModelFacts:
    """Facts in the config.json of a model by which a study is set."""

    blocks: int
    d_model: int
    dtype: str | None
    """A key of `DTYPES`: the precision in which the model was saved; None where it is another or not said."""


def facts_of(path: str) -> ModelFacts:
    """Read the configuration of the model at `path`, running no code of it. ValueError where it cannot be read."""
    config = _config(path, trust_remote_code=False)
    text = config.get_text_config()
    names = [str(one.dtype).removeprefix("torch.") for one in (config, text)]
    return ModelFacts(_depth(config), text.hidden_size, next((name for name in names if name in DTYPES), None))


# ------------------------------------------------------------------ loading


def _load(
    kind: type[AutoModel] | type[AutoModelForCausalLM],
    path: str,
    config: PreTrainedConfig,
    dtype: str,
    device: str,
    trust_remote_code: bool,
) -> PreTrainedModel:
    refuse_corrupted(path)
    with one_line(f"cannot load the model {path}"), quiet_transformers():
        loaded = kind.from_pretrained(
            location(path),
            config=config,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
    assert isinstance(loaded, tuple)
    model, report = loaded
    if unlike := sorted(report["missing_keys"]) + sorted(name for name, *_ in report["mismatched_keys"]):
        raise ValueError(
            f"the weights of {path} do not match its config.json: {unlike[0]} (and {len(unlike) - 1} more) "
            "is absent or has another shape; save the model again"
        )
    return model.to(_device(device)).eval().requires_grad_(False)


def attention_of(wanted: str, dtype: str, device: str) -> str | None:
    """The attention to set for `lineup.attention`; None leaves it to transformers. ValueError as `Lineup.load`."""
    possible = device.startswith("cuda") and dtype != "float32" and is_flash_attn_2_available()
    if wanted == "auto":
        return FLASH if possible else None
    if wanted == FLASH and not possible:
        raise ValueError(
            f"lineup.attention = {FLASH} needs the package flash-attn, a CUDA device and half precision, "
            f"not {device} and {dtype}; set it to auto"
        )
    return wanted


def _config(path: str, trust_remote_code: bool) -> PreTrainedConfig:
    refuse_absent(path)
    with one_line(f"cannot read the model {path}"), quiet_transformers():
        return AutoConfig.from_pretrained(location(path), trust_remote_code=trust_remote_code)


def _cut(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """The configuration of a model with so many blocks, its per-block lists (such as `layer_types`) cut alike."""
    text, depth = config.get_text_config(), _depth(config)
    text.num_hidden_layers = layers
    for key, value in list(vars(text).items()):
        if isinstance(value, list | tuple) and len(value) == depth:
            setattr(text, key, value[:layers])
    return config


def _depth(config: PreTrainedConfig) -> int:
    return config.get_text_config().num_hidden_layers


def _middle(config: PreTrainedConfig) -> int:
    return max(1, _depth(config) // 2)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {name!r} cannot be used here; set lineup.device to cpu or another") from error
    return device


# ------------------------------------------------------------------ what a lineup refuses


def _same_shape(configs: dict[str, PreTrainedConfig]) -> None:
    (base, first), *others = configs.items()
    for name, config in others:
        for what in ("hidden_size", "vocab_size"):
            wanted, found = getattr(first.get_text_config(), what), getattr(config.get_text_config(), what)
            if found != wanted:
                raise ValueError(
                    f"{what} of {name!r} is {found}, of {base!r} {wanted}; a lineup's models have one base"
                )


def _has_layer(config: PreTrainedConfig, layers: int, name: str) -> None:
    depth = _depth(config)
    if not 1 <= layers <= depth:
        raise ValueError(
            f"lineup.layer is {layers}, but {name} has {depth} blocks; choose 1..{depth}, "
            f"or leave it out for the middle ({_middle(config)})"
        )
