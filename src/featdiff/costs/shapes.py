"""The shape of a transformer, and what follows from it: parameters, the FLOPs of a token, the bytes of a cached token.

per block and token   2 weights of attention and MLP + 4 a h s     a positions attended to, h heads of size s
LM head               2 d_model vocabulary

Norms, rotations, softmax and activations are not counted; they are some percent of a small model and less of a large
one. Nothing is downloaded: a shape comes from a folder, from the hub's cache, from the public shapes below, or from the
command line.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from featdiff.config.study_file import DEMO_PREFIX, is_hub_id


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer."""

    layers: int
    d_model: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    """Width of the MLP."""
    vocabulary: int
    tied: bool = True
    """Whether the LM head is the embedding."""
    gated: bool = True
    """Whether the MLP has three matrices (a gate) or two."""

    @property
    def block_weights(self) -> int:
        """Weights of the matrices of one block: queries and output, keys and values, MLP."""
        attention = 2 * self.d_model * self.head_dim * (self.heads + self.kv_heads)
        return attention + (3 if self.gated else 2) * self.d_model * self.mlp

    @property
    def embedding(self) -> int:
        """Weights of the embedding, and of the LM head."""
        return self.d_model * self.vocabulary

    @property
    def parameters(self) -> int:
        """Weights of the whole model; biases and learned positions are left out."""
        return self.below(self.layers) + self.d_model + (0 if self.tied else self.embedding)

    @property
    def block_values(self) -> int:
        """Values per token that a block holds at its widest: residuals, queries, keys, values, and the MLP's."""
        return 4 * self.d_model + 2 * self.head_dim * (self.heads + self.kv_heads) + 4 * self.mlp

    @property
    def cached_values(self) -> int:
        """Values per token in a cache of keys and values."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def below(self, layers: int) -> int:
        """Weights of the embedding and of so many blocks."""
        return self.embedding + layers * (self.block_weights + 2 * self.d_model)

    def forward(self, attended: float, *, layers: int | None = None, head: bool = True) -> float:
        """FLOPs of a token that passes `layers` blocks (None: all) and attends to so many positions."""
        blocks = self.layers if layers is None else layers
        scores = 4 * attended * self.heads * self.head_dim
        return blocks * (2 * self.block_weights + scores) + (2 * self.embedding if head else 0)


@dataclass(frozen=True)
class KnownShape:
    """A shape, and in words where it is from."""

    shape: Shape
    origin: str


# From the public config.json of each; the names of their variants begin alike.
PUBLIC = {
    "Qwen/Qwen3-4B": Shape(36, 2560, 32, 8, 128, 9728, 151936),
    "Qwen/Qwen3-32B": Shape(64, 5120, 64, 8, 128, 25600, 151936, tied=False),
    "Qwen/Qwen2.5-0.5B": Shape(24, 896, 14, 2, 64, 4864, 151936),
    "Qwen/Qwen2.5-7B": Shape(28, 3584, 28, 4, 128, 18944, 152064, tied=False),
    "meta-llama/Llama-3.1-8B": Shape(32, 4096, 32, 8, 128, 14336, 128256, tied=False),
}
ALIASES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "d_model": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "mlp": ("intermediate_size", "n_inner", "ffn_dim"),
    "vocabulary": ("vocab_size",),
}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
UNGATED = {
    *("bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt", "opt", "phi"),
    "starcoder2",
}
REQUIRED = ("layers", "d_model", "heads", "mlp", "vocabulary")
SWITCHES = ("tied", "gated")
FIELDS = tuple(field.name for field in fields(Shape))


def shape_of(path: str, changes: Mapping[str, float]) -> KnownShape:
    """The shape of the model at `path` (a folder, a hub id, or `demo:base`), with `changes` laid over it.

    Of a mixture of experts the MLP must be given: the width of all experts that a token passes. Raises ValueError, in
    one line, for a shape that is neither known here nor given.
    """
    found, origin = _found(path)
    if missing := [name for name in REQUIRED if name not in {*found, *changes}]:
        raise ValueError(
            f"the shape of {path} is not known here and nothing is downloaded; "
            f"give it with --shape {','.join(f'{name}=N' for name in missing)}"
        )
    values = found | {name: int(value) for name, value in changes.items()}
    if wrong := [f"{name}={value}" for name, value in values.items() if value < (name not in SWITCHES)]:
        raise ValueError(f"--shape {wrong[0]} is no size; give a positive number")
    sizes = {"kv_heads": values["heads"], "head_dim": values["d_model"] // values["heads"]} | values
    tied, gated = bool(sizes.pop("tied", 1)), bool(sizes.pop("gated", 1))
    said = [part for part in (origin, "--shape" if changes else "") if part]
    return KnownShape(Shape(**sizes, tied=tied, gated=gated), ", changed by ".join(said))


def _found(path: str) -> tuple[dict[str, int], str]:
    """What is known of the shape of a model without the network, and from where."""
    file = _config_file(path)
    if file is not None:
        return _read(file), f"config.json of {path}"
    for name, shape in PUBLIC.items():
        if path.lower().startswith(name.lower()):
            return asdict(shape), f"public config.json of {name}"
    return {}, ""


def _config_file(path: str) -> Path | None:
    """The config.json of a model on this disk; None for a hub id that is not in the cache."""
    if path.startswith(DEMO_PREFIX):
        return Path(str(files("featdiff.demo"))) / path.removeprefix(DEMO_PREFIX) / "config.json"
    if is_hub_id(path):
        cached = try_to_load_from_cache(path, "config.json")
        return Path(cached) if isinstance(cached, str) else None
    file = Path(path) / "config.json"
    if not file.is_file():
        raise ValueError(f"{path} holds no config.json; give a model folder in Hugging Face form, or a hub id")
    return file


def _read(file: Path) -> dict[str, int]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {file} ({error}); copy or save the model again") from None
    text = config.get("text_config", config)
    found: dict[str, int] = {}
    for name, aliases in ALIASES.items():
        values = [text[alias] for alias in aliases if isinstance(text.get(alias), int)]
        found |= {name: values[0]} if values else {}
    if any((text.get(name) or 0) > 1 for name in EXPERTS):
        found.pop("mlp", None)
    elif "d_model" in found:
        found.setdefault("mlp", 4 * found["d_model"])
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", True))
    return found | {"tied": bool(tied), "gated": text.get("model_type") not in UNGATED}
