"""The lineup: named models over one tokenizer, tapped after the same number of blocks.

The residual stream after block `layers` (counted from 1) is what transformers calls `hidden_states[layers]`. Whatever
lies above the tap is neither loaded nor run.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

Tokenizer = PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
PROBE = "Naïve DON'T don't 3.14 12345\n\n\tdef f(x):  return x ** 2  # 日本語 Ünïcödé 😀 <tag> </tag> "


@dataclass(frozen=True)
class Lineup:
    """Named models over one tokenizer, each cut off after `layers` blocks; the base comes first."""

    names: tuple[str, ...]
    models: tuple[PreTrainedModel, ...]
    tokenizer: Tokenizer
    layers: int
    d_model: int

    @staticmethod
    def load(
        paths: dict[str, str],
        *,
        layer: int | None,
        dtype: str = "float32",
        device: str = "cpu",
        trust_remote_code: bool = False,
    ) -> "Lineup":
        """Load the models at `paths` (folders or hub ids, by name) up to block `layer`; None: the middle of the first.

        A folder that occurs under two names is loaded once. Raises ValueError for a missing or broken model, for models
        with different tokenizers, widths or vocabularies, and for a layer that a model does not have.
        """
        assert paths, "a lineup holds at least one model"
        configs = {name: _config(path, trust_remote_code) for name, path in paths.items()}
        _same_shape(configs)
        tokenizer = _common_tokenizer(paths, trust_remote_code)
        layers = _middle(next(iter(configs.values()))) if layer is None else layer
        for name, config in configs.items():
            _has_layer(config, layers, name)
        loaded: dict[str, PreTrainedModel] = {}
        for path in paths.values():
            if _identity(path) not in loaded:
                loaded[_identity(path)] = load_truncated(
                    path, layers, dtype=dtype, device=device, trust_remote_code=trust_remote_code
                )
        return Lineup(
            names=tuple(paths),
            models=tuple(loaded[_identity(path)] for path in paths.values()),
            tokenizer=tokenizer,
            layers=layers,
            d_model=_text(next(iter(configs.values()))).hidden_size,
        )

    def residuals(
        self,
        input_ids: Int[Tensor, "batch positions"],
        attention_mask: Int[Tensor, "batch positions"] | None = None,
        position_ids: Int[Tensor, "batch positions"] | None = None,
    ) -> Float[Tensor, "batch positions models d_model"]:
        """The residual streams of all models on the same tokens, float32, on the models' device.

        Without an attention mask, position ids that start again at 0 mark packed documents, and attention stays inside
        each. Raises ValueError for more positions than a model has.
        """
        self._fits(input_ids.shape[1])
        result = torch.empty(*input_ids.shape, len(self.names), self.d_model, device=self.models[0].device)
        first_of: dict[int, int] = {}
        with torch.inference_mode():
            for index, model in enumerate(self.models):
                twin = first_of.setdefault(id(model), index)
                if twin == index:
                    result[:, :, index] = residual(model, self.layers, input_ids, attention_mask, position_ids)
                else:
                    result[:, :, index] = result[:, :, twin]
        return result

    def _fits(self, positions: int) -> None:
        for name, model in zip(self.names, self.models, strict=True):
            longest = getattr(_text(model.config), "max_position_embeddings", None)  # ALiBi models have no such limit
            if longest is not None and positions > longest:
                raise ValueError(
                    f"sequences of {positions} tokens exceed the {longest} positions of model {name!r}; "
                    f"set corpus.context to at most {longest}"
                )


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> Tokenizer:
    """The tokenizer of a model folder or hub id. Raises ValueError when there is none."""
    _refuse_absent(path)
    folder = Path(path).expanduser()
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        # transformers makes an empty tokenizer of the model's type where the files are absent, without a word.
        raise ValueError(f"{path} holds no tokenizer (tokenizer.json); save the tokenizer beside the model")
    with _one_line(f"cannot load the tokenizer of {path}"), _quiet():
        return AutoTokenizer.from_pretrained(_location(path), trust_remote_code=trust_remote_code)


def load_model(
    path: str, *, dtype: str = "float32", device: str = "cpu", trust_remote_code: bool = False
) -> PreTrainedModel:
    """A whole causal language model, in evaluation mode, without gradients. Raises ValueError as `load_truncated`."""
    config = _config(path, trust_remote_code)
    return _load(AutoModelForCausalLM, path, config, dtype, device, trust_remote_code)


def load_truncated(
    path: str, layers: int, *, dtype: str = "float32", device: str = "cpu", trust_remote_code: bool = False
) -> PreTrainedModel:
    """Embeddings and the first `layers` blocks of a model; the other blocks and the LM head stay on the disk.

    Raises ValueError for an absent, unknown, incomplete or corrupted model and for a layer out of 1..L.
    """
    config = _config(path, trust_remote_code)
    _has_layer(config, layers, path)
    return _load(AutoModel, path, _cut(config, layers), dtype, device, trust_remote_code)


def middle_layer(path: str, *, trust_remote_code: bool = False) -> int:
    """Number of blocks below the middle of the model at `path`: floor(L / 2), at least 1."""
    return _middle(_config(path, trust_remote_code))


def depth(path: str, *, trust_remote_code: bool = False) -> int:
    """Number of blocks of the model at `path`."""
    return _depth(_config(path, trust_remote_code))


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The model's stack of blocks: the one outermost list of modules as long as the model is deep.

    Raises ValueError for a model with no such list, or with several.
    """
    depth = _depth(model.config)
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth}
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outermost) != 1:
        raise ValueError(
            f"{type(model).__name__} has {len(outermost)} lists of {depth} modules ({', '.join(outermost)}); "
            "only models with one stack of blocks can be tapped"
        )
    return lists[outermost[0]]


def residual(
    model: PreTrainedModel,
    layers: int,
    input_ids: Int[Tensor, "batch positions"],
    attention_mask: Int[Tensor, "batch positions"] | None = None,
    position_ids: Int[Tensor, "batch positions"] | None = None,
) -> Float[Tensor, "batch positions d_model"]:
    """Residual stream after block `layers` of a whole or truncated model, float32; the forward pass ends there.

    It equals `hidden_states[layers]` of the full model, save after the last block, where transformers applies the final
    norm and we do not. Position ids that start again at 0 keep attention inside packed documents, unless an attention
    mask is given.
    """

    def stop(module: nn.Module, arguments: tuple[object, ...], output: Tensor) -> None:
        raise _Tapped(output)

    handle = blocks(model)[layers - 1].register_forward_hook(stop)
    try:
        model.base_model(
            input_ids=_on(model, input_ids),
            attention_mask=_on(model, attention_mask),
            position_ids=_on(model, position_ids),
            use_cache=False,  # with a cache, transformers does not see that documents are packed
        )
    except _Tapped as tapped:
        return tapped.residual.float()
    finally:
        handle.remove()
    raise AssertionError(f"{type(model).__name__} did not run its block {layers}")


class _Tapped(Exception):
    """Carries the residual stream out of a forward pass that need not go on."""

    def __init__(self, residual: Tensor) -> None:
        self.residual = residual


def _on(model: PreTrainedModel, ids: Tensor | None) -> Tensor | None:
    return None if ids is None else ids.to(model.device, torch.long)


# ------------------------------------------------------------------ loading


def _load(
    kind: type[AutoModel] | type[AutoModelForCausalLM],
    path: str,
    config: PreTrainedConfig,
    dtype: str,
    device: str,
    trust_remote_code: bool,
) -> PreTrainedModel:
    _refuse_corrupted(path)
    with _one_line(f"cannot load the model {path}"), _quiet():
        loaded = kind.from_pretrained(
            _location(path),
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


def _config(path: str, trust_remote_code: bool) -> PreTrainedConfig:
    _refuse_absent(path)
    with _one_line(f"cannot read the model {path}"), _quiet():
        return AutoConfig.from_pretrained(_location(path), trust_remote_code=trust_remote_code)


def _cut(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """The configuration of a model with so many blocks, its per-block lists (such as `layer_types`) cut alike."""
    text, depth = _text(config), _depth(config)
    text.num_hidden_layers = layers
    for key, value in list(vars(text).items()):
        if isinstance(value, list | tuple) and len(value) == depth:
            setattr(text, key, value[:layers])
    return config


def _text(config: PreTrainedConfig) -> PreTrainedConfig:
    return config.get_text_config()


def _depth(config: PreTrainedConfig) -> int:
    return _text(config).num_hidden_layers


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
            wanted, found = getattr(_text(first), what), getattr(_text(config), what)
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


def _common_tokenizer(paths: dict[str, str], trust_remote_code: bool) -> Tokenizer:
    by_place: dict[str, Tokenizer] = {}
    for path in paths.values():
        if _identity(path) not in by_place:
            by_place[_identity(path)] = load_tokenizer(path, trust_remote_code=trust_remote_code)
    (base, base_path), *others = paths.items()
    common = by_place[_identity(base_path)]
    for name, path in others:
        if differing := _differing(common, by_place[_identity(path)]):
            raise ValueError(
                f"the tokenizers of {base!r} and {name!r} differ in their {differing}; "
                "all models of a lineup must read the same tokens"
            )
    return common


def _differing(one: Tokenizer, other: Tokenizer) -> str | None:
    """What differs between two tokenizers, or None; files that say the same in another form are the same."""
    if one is other:
        return None
    if one.get_vocab() != other.get_vocab():
        return "vocabulary"
    if _special(one) != _special(other):
        return "special tokens"
    if _merges(one) != _merges(other):
        return "merges"
    return None if one(PROBE)["input_ids"] == other(PROBE)["input_ids"] else "way of splitting text"


def _special(tokenizer: Tokenizer) -> dict[int, str]:
    return {index: token.content for index, token in tokenizer.added_tokens_decoder.items()}


def _merges(tokenizer: Tokenizer) -> object:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    return json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("merges")


# ------------------------------------------------------------------ places on the disk, and errors


def _location(path: str) -> str:
    folder = Path(path).expanduser()
    return str(folder) if folder.exists() else path


def _identity(path: str) -> str:
    folder = Path(path).expanduser()
    return str(folder.resolve()) if folder.exists() else path


def _refuse_absent(path: str) -> None:
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"{path} holds no config.json; give a model folder in Hugging Face form")
    elif folder.exists():
        raise ValueError(f"{path} is a file; give the model's folder")
    elif path.startswith((".", "~", os.sep)) or path.count("/") > 1:
        raise ValueError(f"the model folder {path} does not exist; check the path")


def _refuse_corrupted(path: str) -> None:
    for file in sorted(Path(path).expanduser().glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{file} is not a whole safetensors file ({error}); copy or save it again") from error


@contextmanager
def _one_line(doing: str) -> Iterator[None]:
    """Turn what transformers raises for a bad model into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise ValueError(f"{doing}: {reason}; check the folder or hub id") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' load reports and bars off the screen: a truncated load leaves weights out by intention."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
