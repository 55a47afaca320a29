"""Parameters of a transformer by group: it is built on the meta device, without memory for its weights, and counted.

Its config.json comes from its folder, from the hub's cache, or from public_models.json, where the names of variants
(-Base, -Instruct) begin alike. Nothing is downloaded.
"""

import json
from importlib.resources import files

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from featdiff.config.study_file import is_hub_id
from featdiff.models.logging import quiet_transformers
from featdiff.models.paths import location, one_line
from featdiff.models.residual import blocks
from featdiff.models.shapes import Shape


def counted_shape(path: str, trust_remote_code: bool) -> Shape:
    """The shape of a model, with its parameters counted; see `shape_of`."""
    config = _config(path, trust_remote_code)
    with one_line(f"cannot build the model {path}"), quiet_transformers(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    text, stack = config.get_text_config(), blocks(model)
    heads, head_dim = int(text.num_attention_heads), getattr(text, "head_dim", None)
    width = heads * int(head_dim) if head_dim else int(text.hidden_size)
    embedding, in_blocks, chosen = _count(model.get_input_embeddings()), _count(stack), _chosen(text)
    matrices = [(name, weight.numel()) for name, weight in stack.named_parameters() if weight.ndim > 1]
    active = sum(count * (chosen if ".experts." in name else 1.0) for name, count in matrices)
    return Shape(
        layers=len(stack),
        d_model=int(text.hidden_size),
        attention=width,
        keys=width * int(getattr(text, "num_key_value_heads", None) or heads) // heads,
        vocabulary=int(text.vocab_size),
        embedding=embedding,
        block=in_blocks // len(stack),
        active=round(active / len(stack)),
        head=_count(model) - in_blocks - embedding,
    )


def _config(path: str, trust_remote_code: bool) -> PreTrainedConfig:
    on_hub = is_hub_id(path)
    try:
        with one_line(f"cannot read the model {path}"), quiet_transformers():
            return AutoConfig.from_pretrained(
                location(path), trust_remote_code=trust_remote_code, local_files_only=on_hub
            )
    except ValueError:
        if not on_hub:
            raise
    public = json.loads((files("featdiff.models") / "public_models.json").read_text(encoding="utf-8"))
    for name, settings in public.items():
        if path.lower().startswith(name.lower()):
            return AutoConfig.for_model(**settings)
    raise ValueError(f"the shape of {path} is not known here and nothing is downloaded: hf download {path} config.json")


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _chosen(text: PreTrainedConfig) -> float:
    """Share of the experts that a token passes; 1 where there are none."""
    counts = (getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    experts = next((int(count) for count in counts if count), 0)
    return int(text.num_experts_per_tok) / experts if experts else 1.0
