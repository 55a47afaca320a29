"""Residual streams of a model of the paper's size on a CUDA GPU: cut off at the tap, beside full forward passes.

    python benchmarks/gpu_harvest.py                # a random model of the shape of Qwen3-4B, bfloat16
    python benchmarks/gpu_harvest.py --json > RUN.json

The models read the same packed documents up to the middle layer: as featdiff does it, and by full forward passes of
transformers that keep all hidden states, with the LM head and without. The activations must be equal to the bit. They
take turns in one process, in an order that is drawn anew, and medians of the rounds count.
"""

import argparse
import json
import platform
import shlex
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
from gpu_step import PAPER_TOKENS, limits_of
from harvest import packed, take_turns
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from featdiff.models.loading import Lineup, attention_of

MODELS = 3
"""Of the paper's study: base, SFT and RL."""


@dataclass(frozen=True)
class Size:
    """The model, and how much it reads at a time."""

    d_model: int = 2560
    layers: int = 36
    heads: int = 32
    key_value_heads: int = 8
    head_dim: int = 128
    intermediate: int = 9728
    vocabulary: int = 151_936
    rows: int = 16
    context: int = 1024


SIZES = {"qwen3-4b": Size(), "tiny": Size(32, 4, 4, 2, 8, 96, 128, 2, 32)}


@dataclass(frozen=True)
class Record:
    """One way to the activations."""

    who: str
    median_seconds: float
    fastest_seconds: float
    slowest_seconds: float
    tokens_per_second: float
    ratio: float
    """Of its median to featdiff's."""
    share_of_bfloat16: float
    """Of the products that the blocks below the tap take, beside the GPU's own largest products."""
    paper_hours: float
    """For 400 million tokens through three models."""


def harvested(size: Size, rounds: int, device: str, flops_per_second: float) -> list[Record]:
    """Every contestant in turns; ValueError where the activations differ."""
    torch.manual_seed(0)
    whole = _model(size, device)
    middle = size.layers // 2
    below = whole.base_model
    if (attention := attention_of("auto", "bfloat16", device)) is not None:
        below.set_attn_implementation(attention)
    lineup = Lineup(("base",), (below,), PreTrainedTokenizerBase(), middle, size.d_model, torch.device(device))
    corpus = packed(size.rows, size.context, size.vocabulary)
    ids, positions = corpus.input_ids.long().to(device), corpus.position_ids.to(device)
    given: dict[str, torch.Tensor] = {}

    def ours() -> None:
        given["featdiff"] = lineup.residuals(ids, position_ids=positions)[:, :, 0]
        _wait(device)

    def full(name: str, model: torch.nn.Module) -> Callable[[], None]:
        @torch.inference_mode()
        def run() -> None:
            output = model(input_ids=ids, position_ids=positions, output_hidden_states=True, use_cache=False)
            given[name] = output.hidden_states[middle].float()
            _wait(device)

        return run

    others = {"transformers": full("transformers", whole)}
    others |= {"transformers, no LM head": full("transformers, no LM head", below)}
    spent = take_turns({"featdiff": ours, **others}, rounds)
    if unlike := [name for name in others if not torch.equal(given[name], given["featdiff"])]:
        raise ValueError(f"the activations of {unlike[0]} are not those of featdiff, to the bit")
    yardstick = statistics.median(spent["featdiff"].wall)
    flops = 2 * _weights_below(size, middle) * ids.numel()
    return [_record(name, one.wall, yardstick, ids.numel(), flops / flops_per_second) for name, one in spent.items()]


def _model(size: Size, device: str) -> Any:
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=size.vocabulary,
        hidden_size=size.d_model,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        head_dim=size.head_dim,
        max_position_embeddings=size.context,
        tie_word_embeddings=True,
    )
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval().requires_grad_(False)


def _weights_below(size: Size, layers: int) -> int:
    """Weights of the products in the blocks below the tap."""
    attention = size.d_model * size.head_dim * 2 * (size.heads + size.key_value_heads)
    return layers * (attention + 3 * size.d_model * size.intermediate)


def _record(who: str, seconds: tuple[float, ...], yardstick: float, tokens: int, floor: float) -> Record:
    median = statistics.median(seconds)
    return Record(
        who=who,
        median_seconds=median,
        fastest_seconds=min(seconds),
        slowest_seconds=max(seconds),
        tokens_per_second=tokens / median,
        ratio=median / yardstick,
        share_of_bfloat16=floor / median,
        paper_hours=MODELS * PAPER_TOKENS / tokens * median / 3600,
    )


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def text(document: dict[str, Any]) -> str:
    """The document as a table in Markdown."""
    head = [
        f"{document['gpu']}, torch {document['torch']}, transformers {document['transformers']}; bfloat16 products "
        f"{document['limits']['flops_per_second'] / 1e12:.0f} TFLOP/s. `{document['command']}`",
        "",
        "| who | ms | tokens/s | x featdiff | products below the tap, of bfloat16 | 400M tokens, 3 models |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    return "\n".join(head + [_line(each) for each in document["records"]])


def _line(each: dict[str, Any]) -> str:
    cells = [
        each["who"],
        f"{1000 * each['median_seconds']:.1f}",
        f"{each['tokens_per_second']:,.0f}",
        f"{each['ratio']:.2f}",
        f"{each['share_of_bfloat16']:.0%}",
        f"{each['paper_hours']:.2f} h",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, and print a table, or all there is as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--size", choices=SIZES, default="qwen3-4b")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_harvest.py: torch finds no CUDA GPU; run it on a machine that has one", file=sys.stderr)
        sys.exit(2)
    limits = limits_of("cuda")
    records = harvested(SIZES[arguments.size], arguments.rounds, "cuda", limits.flops_per_second)
    document = {
        "command": shlex.join(["python", "benchmarks/gpu_harvest.py", *sys.argv[1:]]),
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "limits": asdict(limits),
        "records": [asdict(each) for each in records],
    }
    print(json.dumps(document, indent=2) if arguments.json else text(document))


if __name__ == "__main__":
    main()
