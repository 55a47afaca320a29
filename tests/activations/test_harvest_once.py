"""Eleven models and thirteen crosscoders on one stream: each model reads the corpus once, and nobody notices others."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, PreTrainedTokenizerBase, Qwen3Config

from featdiff.activations.stream import ActivationStream
from featdiff.config.study import ActivationSettings, TrainingSettings
from featdiff.crosscoder import BatchTopK, Crosscoder, ReLU
from featdiff.crosscoder.trainer import train
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup
from featdiff.models.residual import blocks

D_MODEL, ROWS, CONTEXT, CALIBRATED = 16, 48, 32, 4
CHECKPOINTS = {paradigm: [f"{paradigm}-{number}" for number in range(1, 6)] for paradigm in ("sft", "rl")}
NAMES = ("base", *CHECKPOINTS["sft"], *CHECKPOINTS["rl"])
LAST = ("sft-5", "rl-5")
LINEUPS = {
    "joint": ("base", *LAST),
    **{f"base-{name[:-2]}": ("base", name) for name in LAST},
    **{f"dynamics-{name}": ("base", name) for name in NAMES[1:]},
}
PRIVATE = 2 * 10 + 3 + 2 * 2
"""Forward passes per token if every crosscoder had its own."""

Reads = Counter[str]


def lineup() -> tuple[Lineup, Reads]:
    """Random models, and how many rows each has read."""
    reads, models = Reads(), []
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        shape = {"vocab_size": 97, "hidden_size": D_MODEL, "intermediate_size": 24, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": CONTEXT}
        model = AutoModel.from_config(Qwen3Config.from_dict(shape | heads)).eval().requires_grad_(False)

        def count(module: object, given: tuple[torch.Tensor, ...], name: str = name) -> None:
            reads[name] += len(given[0])

        blocks(model)[0].register_forward_pre_hook(count)
        models.append(model)
    return Lineup(NAMES, tuple(models), PreTrainedTokenizerBase(), layers=1, d_model=D_MODEL), reads


def stream(models: Lineup) -> ActivationStream:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 97, (ROWS, CONTEXT), generator=generator).int()
    start = torch.rand(ROWS, CONTEXT, generator=generator) < 0.1
    start[:, 0] = True
    settings = ActivationSettings(batch_size=16, buffer_mib=1, scale_tokens=CALIBRATED * CONTEXT)
    return ActivationStream(models, Corpus(ids, start), settings, batch_size=64, epochs=1, seed=0)


def trained(names: tuple[str, ...], models: Lineup, folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of some of the crosscoders, trained side by side on one stream over all models."""
    crosscoders = {
        name: Crosscoder(
            models=LINEUPS[name],
            d_model=D_MODEL,
            features=40,
            sparsity=ReLU(weight=0.3) if number % 2 else BatchTopK(k=5, dead_after_tokens=300),
            seed=number,
        )
        for number, name in enumerate(LINEUPS)
        if name in names
    }
    settings = TrainingSettings(batch_size=64, lr=1e-2)
    train(crosscoders, stream(models), settings, folder=folder)
    return {name: load_file(folder / name / "crosscoder.safetensors") for name in names}


@pytest.mark.slow
def test_each_model_reads_each_row_once_for_thirteen_crosscoders_whose_weights_are_those_of_separate_runs(
    tmp_path: Path,
) -> None:
    assert (len(NAMES), len(LINEUPS), sum(map(len, LINEUPS.values()))) == (11, 13, PRIVATE)
    models, reads = lineup()
    together = trained(tuple(LINEUPS), models, tmp_path / "together")
    assert reads == dict.fromkeys(NAMES, ROWS + CALIBRATED)

    for name in LINEUPS:
        alone = trained((name,), models, tmp_path / name)[name]
        assert together[name].keys() == alone.keys()
        for key, tensor in alone.items():
            assert torch.equal(together[name][key], tensor), f"{key} of {name}"
    assert not torch.equal(together["base-sft"]["W_dec"], together["base-rl"]["W_dec"])


@pytest.mark.parametrize("names", [("joint", "base-rl"), ("dynamics-sft-3",)])
def test_the_number_of_crosscoders_does_not_change_what_the_models_read(tmp_path: Path, names: tuple[str, ...]) -> None:
    models, reads = lineup()
    trained(names, models, tmp_path)
    assert reads == dict.fromkeys(NAMES, ROWS + CALIBRATED)
