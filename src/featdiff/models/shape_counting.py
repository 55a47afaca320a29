"""Parameters of a transformer by group: it is built on the meta device, without memory for its weights, and counted.

Its config.json comes from its folder, from the hub's cache, or from the table of public models. Nothing is downloaded.
"""

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from featdiff.config.study_file import is_hub_id
from featdiff.models.logging import quiet_transformers
from featdiff.models.paths import location, one_line
from featdiff.models.residual import blocks
from featdiff.models.shapes import Shape

# From the public config.json of each; the names of their variants (-Base, -Instruct) begin alike.
PUBLIC: dict[str, tuple[str, dict[str, int | bool]]] = {
    name: (
        kind,
        {
            "num_hidden_layers": layers,
            "hidden_size": d_model,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": 64 if d_model == 896 else 128,
            "intermediate_size": mlp,
            "vocab_size": vocabulary,
            "tie_word_embeddings": tied,
        },
    )
    for name, kind, layers, d_model, heads, kv_heads, mlp, vocabulary, tied in [
        ("Qwen/Qwen3-4B", "qwen3", 36, 2560, 32, 8, 9728, 151936, True),
        ("Qwen/Qwen3-32B", "qwen3", 64, 5120, 64, 8, 25600, 151936, False),
        ("Qwen/Qwen2.5-0.5B", "qwen2", 24, 896, 14, 2, 4864, 151936, True),
        ("Qwen/Qwen2.5-7B", "qwen2", 28, 3584, 28, 4, 18944, 152064, False),
        ("meta-llama/Llama-3.1-8B", "llama", 32, 4096, 32, 8, 14336, 128256, False),
    ]
}


def counted_shape(path: str, trust_remote_code: bool) -> Shape:
    """The shape of a model, with its parameters counted; see `shape_of`."""
    config = _config(path, trust_remote_code)
    with one_line(f"cannot build the model {path}"), quiet_transformers(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    text, stack = config.get_text_config(), blocks(model)
    layers, d_model, heads = len(stack), int(text.hidden_size), int(text.num_attention_heads)
    head_dim = int(getattr(text, "head_dim", None) or d_model // heads)
    embedding = sum(parameter.numel() for parameter in model.get_input_embeddings().parameters())
    in_blocks, chosen = _count(stack), _experts(text)
    return Shape(
        layers=layers,
        d_model=d_model,
        attention=heads * head_dim,
        keys=int(getattr(text, "num_key_value_heads", None) or heads) * head_dim,
        mlp=_mlp_width(text),
        vocabulary=int(text.vocab_size),
        embedding=embedding,
        block=in_blocks // layers,
        active=round(sum(_weights(*named, chosen) for named in stack.named_parameters()) / layers),
        head=_count(model) - in_blocks - embedding,
    )


def _config(path: str, trust_remote_code: bool) -> PreTrainedConfig:
    try:
        with one_line(f"cannot read the model {path}"), quiet_transformers():
            return AutoConfig.from_pretrained(
                location(path), trust_remote_code=trust_remote_code, local_files_only=is_hub_id(path)
            )
    except ValueError:
        if not is_hub_id(path):
            raise
    for name, (kind, public) in PUBLIC.items():
        if path.lower().startswith(name.lower()):
            return AutoConfig.for_model(kind, **public)
    raise ValueError(f"the shape of {path} is not known here and nothing is downloaded: hf download {path} config.json")


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _weights(name: str, parameter: nn.Parameter, chosen: float) -> float:
    """Weights of a matrix that a token is multiplied with; of stacked or listed experts the share that is chosen."""
    if parameter.ndim < 2:
        return 0.0
    return parameter.numel() * (chosen if ".experts." in name else 1.0)


def _experts(text: PreTrainedConfig) -> float:
    """Share of the experts that a token passes; 1 where there are none."""
    counts = (getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    experts = next((int(count) for count in counts if count), 0)
    return int(text.num_experts_per_tok) / experts if experts else 1.0


def _mlp_width(text: PreTrainedConfig) -> int:
    widths = (
        getattr(text, name, None) for name in ("moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim")
    )
    width = next((int(width) for width in widths if width), 4 * int(text.hidden_size))
    return width * int(text.num_experts_per_tok) if _experts(text) < 1 else width
