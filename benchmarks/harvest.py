"""What a harvest costs: models that are cut off at the tap beside whole ones, and many crosscoders on one stream.

    python benchmarks/harvest.py --json

1. A random 12-layer model reads packed random tokens up to its middle layer: as featdiff does it, and by a full forward
   pass of transformers that keeps all hidden states, with the LM head and without. The activations must be equal to the
   bit.
2. Eleven models and thirteen crosscoders: the harvest alone, the training steps of all crosscoders alone (the same
   batches, kept in memory), and both together on one stream.

All contestants live in one process and run once a round, in an order that is drawn anew. Ratios are those of a round;
medians over the rounds count.
"""

import argparse
import json
import os
import platform
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from records import machine
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, Qwen3Config

from featdiff.activations.stream import Activations, ActivationStream, StreamState
from featdiff.config.study import ActivationSettings, TrainingSettings
from featdiff.crosscoder import BatchTopK, Crosscoder
from featdiff.crosscoder.matmul import fast_products_are_exact, float32_products
from featdiff.crosscoder.trainer import train
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup, load_model, load_truncated

CHECKPOINTS = tuple(f"{paradigm}-{number}" for paradigm in ("sft", "rl") for number in range(1, 6))
NAMES = ("base", *CHECKPOINTS)
LINEUPS = {
    "joint": ("base", "sft-5", "rl-5"),
    "base-sft": ("base", "sft-5"),
    "base-rl": ("base", "rl-5"),
    **{f"base-{name}": ("base", name) for name in CHECKPOINTS},
}
DOCUMENT = 180
"""Mean length of a document, in tokens."""


@dataclass(frozen=True)
class Size:
    """How large the models, the texts and the crosscoders of both parts are."""

    d_model: int = 256
    layers: int = 12
    vocabulary: int = 32_768
    rows: int = 8
    context: int = 512
    small_d_model: int = 128
    small_layers: int = 8
    features: int = 1024
    batch: int = 512
    corpus_rows: int = 64
    small_context: int = 256


SIZES = {"full": Size(), "tiny": Size(32, 4, 128, 2, 32, 16, 2, 64, 32, 8, 32)}


@dataclass(frozen=True)
class Spent:
    """Seconds of one contestant, a value a round."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    """Summed over threads."""


def take_turns(contestants: dict[str, Callable[[], None]], rounds: int) -> dict[str, Spent]:
    """Run each once to warm up, then once in every round, in an order that is drawn anew."""
    order, names = random.Random(0), list(contestants)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in order.sample(names, len(names)):
            wall, cpu = time.perf_counter(), time.process_time()
            contestants[name]()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            if number:
                found[name].append(spent)
    return {name: Spent(*zip(*spent, strict=True)) for name, spent in found.items()}


# ------------------------------------------------------------------ up to the tap, or all the way


def truncated(size: Size, rounds: int, folder: Path) -> dict[str, Any]:
    """Seconds of each way to the activations of the middle layer, and how many times featdiff's they are."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(_config(size.d_model, size.layers, size)).save_pretrained(folder)
    middle = size.layers // 2
    below, whole = load_truncated(str(folder), middle), load_model(str(folder))
    lineup = Lineup(("base",), (below,), PreTrainedTokenizerBase(), middle, size.d_model)
    corpus = packed(size.rows, size.context, size.vocabulary)
    ids, positions = corpus.input_ids.long(), corpus.position_ids
    given: dict[str, Tensor] = {}

    def ours() -> None:
        given["featdiff"] = lineup.residuals(ids, position_ids=positions)[:, :, 0]

    def full(name: str, model: torch.nn.Module) -> Callable[[], None]:
        @torch.inference_mode()
        def run() -> None:
            output = model(input_ids=ids, position_ids=positions, output_hidden_states=True, use_cache=False)
            given[name] = output.hidden_states[middle].float()

        return run

    others = {"transformers": full("transformers", whole)}
    others |= {"transformers without LM head": full("transformers without LM head", whole.base_model)}
    spent = take_turns({"featdiff": ours, **others}, rounds)
    for name in others:
        if not torch.equal(given[name], given["featdiff"]):
            raise ValueError(f"the activations of {name} are not those of featdiff, to the bit")
    return {
        "tokens": ids.numel(),
        "identical": True,
        **{
            name: _medians(one)
            | {"tokens_per_second": ids.numel() / statistics.median(one.wall)}
            | ({} if name == "featdiff" else ratios(one, spent["featdiff"]))
            for name, one in spent.items()
        },
    }


# ------------------------------------------------------------------ one stream, many crosscoders


@dataclass(frozen=True)
class Recorded:
    """The batches of a stream, in memory."""

    models: tuple[str, ...]
    scale: Tensor
    steps: int
    served: tuple[tuple[Activations, StreamState], ...]

    def batches(self, state: StreamState | None = None) -> Iterator[tuple[Activations, StreamState]]:
        assert state is None, "nothing is resumed here"
        yield from self.served

    def state_from(self, tensors: dict[str, Tensor]) -> StreamState:
        return ActivationStream.state_from(tensors)


def many_crosscoders(size: Size, rounds: int, folder: Path, prefetch: str) -> dict[str, Any]:
    """Seconds of the harvest alone, of the training steps alone, and of both on one stream."""
    stream = _stream(size, prefetch)
    recorded = Recorded(stream.models, stream.scale, stream.steps, tuple(stream.batches()))
    tokens = sum(len(batch.tokens) for batch, _ in recorded.served)

    def harvest() -> None:
        with float32_products(fast_products_are_exact()):  # as in training
            for _ in stream.batches():
                pass

    def steps() -> None:
        _train(recorded, size, folder)

    def together() -> None:
        _train(stream, size, folder)

    spent = take_turns({"harvest": harvest, "steps": steps, "together": together}, rounds)
    apart = Spent(*(_sums(spent["harvest"], spent["steps"], kind) for kind in ("wall", "cpu")))
    return {
        "tokens": tokens,
        "models": len(NAMES),
        "crosscoders": len(LINEUPS),
        "prefetch": prefetch,
        **{name: _medians(one) for name, one in spent.items()},
        **ratios(spent["together"], apart),
        "tokens_per_second": tokens / statistics.median(spent["together"].wall),
    }


def _stream(size: Size, prefetch: str) -> ActivationStream:
    models = []
    for seed, _ in enumerate(NAMES):
        torch.manual_seed(seed)
        config = _config(size.small_d_model, size.small_layers // 2, size)
        models.append(AutoModelForCausalLM.from_config(config).eval().requires_grad_(False))
    lineup = Lineup(NAMES, tuple(models), PreTrainedTokenizerBase(), size.small_layers // 2, size.small_d_model)
    buffer = 2 * size.batch + size.corpus_rows * size.small_context // 4
    mib = max(1, buffer * len(NAMES) * size.small_d_model * 4 // 2**20)
    settings = ActivationSettings.model_validate(
        {"batch_size": 8, "buffer_mib": mib, "scale_tokens": 8 * size.small_context, "prefetch": prefetch}
    )
    corpus = packed(size.corpus_rows, size.small_context, size.vocabulary)
    return ActivationStream(lineup, corpus, settings, batch_size=size.batch, epochs=1, seed=0)


def _train(stream: ActivationStream | Recorded, size: Size, folder: Path) -> None:
    crosscoders = {
        name: Crosscoder(models, size.small_d_model, size.features, BatchTopK(k=16), seed=0)
        for name, models in LINEUPS.items()
    }
    settings = TrainingSettings(batch_size=size.batch, checkpoint_minutes=1e6)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        train(crosscoders, stream, settings, folder=Path(place))


# ------------------------------------------------------------------ models, texts, numbers


def _config(d_model: int, layers: int, size: Size) -> Qwen3Config:
    return Qwen3Config.from_dict(
        {
            "vocab_size": size.vocabulary,
            "hidden_size": d_model,
            "intermediate_size": 3 * d_model,
            "num_hidden_layers": layers,
            "num_attention_heads": max(2, d_model // 64),
            "num_key_value_heads": max(1, d_model // 128),
            "head_dim": min(64, d_model // 2),
            "max_position_embeddings": size.context,
        }
    )


def packed(rows: int, context: int, vocabulary: int) -> Corpus:
    """Random documents, packed."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (rows, context), generator=generator, dtype=torch.int32)
    start = torch.rand(rows, context, generator=generator) < 1 / DOCUMENT
    start[:, 0] = True
    return Corpus(ids, start)


def _medians(spent: Spent) -> dict[str, float]:
    return {"median_seconds": statistics.median(spent.wall), "cpu_seconds": statistics.median(spent.cpu)}


def _sums(one: Spent, other: Spent, kind: str) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(getattr(one, kind), getattr(other, kind), strict=True))


def ratios(one: Spent, yardstick: Spent) -> dict[str, float]:
    """How many times as long as the yardstick: medians of the ratios of a round, in which both ran."""
    pairs = {kind: zip(getattr(one, kind), getattr(yardstick, kind), strict=True) for kind in ("wall", "cpu")}
    wall, cpu = (statistics.median(a / b for a, b in pairs[kind]) for kind in ("wall", "cpu"))
    return {"ratio": wall, "cpu_ratio": cpu}


def text(document: dict[str, Any]) -> str:
    """The record for people."""
    on = document["machine"]
    lines = [
        f"{on['cpu']}, {on['threads']} threads, {on['memory_gib']} GiB; {on['system']}",
        ", ".join(f"{name} {number}" for name, number in document["versions"].items()),
        f"{document['command']}: medians of {document['rounds']} rounds",
    ]
    if part := document.get("truncated"):
        lines += ["", f"the middle layer of {part['tokens']:,} tokens, equal to the bit"]
        for name in [name for name, one in part.items() if isinstance(one, dict)]:
            one = part[name]
            times = f", {one['ratio']:.2f} x featdiff ({one['cpu_ratio']:.2f} in CPU time)" if "ratio" in one else ""
            lines.append(f"  {name}: {_seconds(one)}, {one['tokens_per_second']:,.0f} tokens/s{times}")
    if part := document.get("many_crosscoders"):
        what = f"{part['models']} models, {part['crosscoders']} crosscoders, {part['tokens']:,} tokens"
        lines += ["", f"{what}, prefetch {part['prefetch']}"]
        lines += [f"  {name}: {_seconds(part[name])}" for name in ("harvest", "steps", "together")]
        lines.append(f"  together / (harvest + steps): {part['ratio']:.3f} ({part['cpu_ratio']:.3f} in CPU time)")
    return "\n".join(lines)


def _seconds(one: dict[str, float]) -> str:
    return f"{one['median_seconds']:.3f} s (CPU {one['cpu_seconds']:.3f} s)"


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full", help="tiny: to see that it works")
    parser.add_argument("--part", choices=("truncated", "many_crosscoders", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--prefetch", choices=("on", "off"), default="off", help="of the stream of the second part")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    document: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/harvest.py", *sys.argv[1:]]),
        "machine": machine(arguments.threads),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("featdiff", "torch", "transformers")},
        "rounds": arguments.rounds,
    }
    size = SIZES[arguments.size]
    with tempfile.TemporaryDirectory() as folder:
        if arguments.part != "many_crosscoders":
            document["truncated"] = truncated(size, arguments.rounds, Path(folder))
        if arguments.part != "truncated":
            part = many_crosscoders(size, arguments.rounds, Path(folder), arguments.prefetch)
            document["many_crosscoders"] = part
    print(json.dumps(document, indent=1) if arguments.json else text(document))


if __name__ == "__main__":
    main()
