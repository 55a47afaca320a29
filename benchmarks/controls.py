"""What a hundred random-feature controls cost, in unedited evaluations of the same items.

    python benchmarks/controls.py
    python benchmarks/controls.py --width 512 --blocks 12

A random model answers four-choice items; sets of random features are zeroed, or set to 3.0, at its middle layer. The
half above the tap has to run a hundred times, so 50 evaluations are the floor where choices share nothing; above the
tap the choices of an item share their context, and the cost can lie below it. Times alternate within one run, and the
smallest of each kind count.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU
from featdiff.evaluation.batches import request_batches
from featdiff.evaluation.results import Requests
from featdiff.intervention.controls import uniform_alive
from featdiff.intervention.edits import Edit
from featdiff.intervention.scoring import score
from featdiff.models.loading import Lineup
from featdiff.models.partial_model import UpperModel

NAMES = ("base", "rl")
CHOICES = 4


@dataclass(frozen=True)
class Shape:
    """What is measured."""

    width: int = 256
    blocks: int = 8
    vocabulary: int = 8192
    items: int = 500
    context: int = 40
    choice: int = 3
    draws: int = 100
    chosen: int = 8
    features: int = 2048
    batch_size: int = 64


@dataclass(frozen=True)
class Cost:
    """Seconds of one unedited evaluation, and of all controls, by the value that features are set to."""

    unedited: float
    controls: dict[float, float]

    @property
    def ratios(self) -> dict[float, float]:
        """Controls in unedited evaluations."""
        return {value: seconds / self.unedited for value, seconds in self.controls.items()}


def made_model(shape: Shape, seed: int) -> PreTrainedModel:
    """A random model of the Qwen3 kind."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.width // 64,
        num_key_value_heads=shape.width // 64,
        head_dim=64,
    )
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def made_requests(shape: Shape) -> Requests:
    """Random four-choice items: contexts of about `context` tokens, choices of `choice` tokens."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(1, shape.vocabulary, (count,), generator=generator).tolist()

    lengths = torch.randint(shape.context // 2, 3 * shape.context // 2, (shape.items,), generator=generator).tolist()
    contexts = [tokens(length) for length in lengths]
    rows = shape.items * CHOICES
    return Requests(
        task="random items",
        sample_ids=tuple(map(str, range(shape.items))),
        choice_counts=torch.full((shape.items,), CHOICES),
        target=torch.randint(CHOICES, (shape.items,), generator=generator),
        context_ids=[context for context in contexts for _ in range(CHOICES)],
        continuation_ids=[tokens(shape.choice) for _ in range(rows)],
        choice_characters=torch.ones(rows),
    )


@torch.inference_mode()
def unedited(model: PreTrainedModel, requests: Requests, shape: Shape) -> None:
    """Every choice of every item through the whole model, as an evaluation harness does."""
    for batch in request_batches(requests, shape.batch_size):
        keep = batch.plain.answer_positions
        logits = model(
            batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, logits_to_keep=keep
        ).logits
        logits.float().log_softmax(dim=-1)


def measure(shape: Shape, rounds: int) -> Cost:
    """Time unedited evaluations and controls in turn."""
    models = tuple(made_model(shape, seed) for seed in range(len(NAMES)))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    lineup = Lineup(NAMES, models, tokenizer, shape.blocks // 2, shape.width)
    upper, requests = UpperModel(models[1], lineup.layers), made_requests(shape)
    crosscoder = Crosscoder(NAMES, shape.width, shape.features, ReLU(weight=2.0)).canonicalise().requires_grad_(False)
    everyone = torch.ones(shape.features, dtype=torch.bool)
    sets = uniform_alive(torch.arange(shape.chosen), everyone, shape.draws, 0).features
    best, controls = float("inf"), dict.fromkeys((0.0, 3.0), float("inf"))
    for _ in range(rounds):
        best = min(best, _seconds(lambda: unedited(models[1], requests, shape)))
        for value in controls:
            edits = [Edit(features, value) for features in sets]
            controls[value] = min(
                controls[value],
                _seconds(
                    lambda edits=edits: score(
                        requests, lineup, upper, crosscoder, "rl", edits, batch_size=shape.batch_size
                    )
                ),
            )
    return Cost(min(best, _seconds(lambda: unedited(models[1], requests, shape))), controls)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, value in vars(Shape()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = vars(parser.parse_args())
    rounds = arguments.pop("rounds")
    shape = Shape(**arguments)
    cost = measure(shape, rounds)
    print(f"one unedited evaluation of {shape.items} items: {cost.unedited:.2f} s")
    for value, ratio in cost.ratios.items():
        print(f"{shape.draws} controls, {shape.chosen} features set to {value:g}: {ratio:.1f} unedited evaluations")


if __name__ == "__main__":
    main()
