"""Every choice of a design survives a run that breaks off."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from featdiff.activations.stream import Activations
from featdiff.config.crosscoder import MLP, BatchTopK, Cosine, DeltaMSE, Design, Procrustes, ReLU, Shared
from featdiff.config.study import TrainingSettings
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.trainer import train
from featdiff.planted import Group, PlantedState, PlantedStream, World

MODELS = ("base", "sft", "rl")
STEPS = 30
SETTINGS = TrainingSettings(batch_size=64, lr=3e-3, log_every=10)
APART = Design(objective=DeltaMSE(-0.5), align=Procrustes(200), shared=Shared(4, 0.25), partition={"rl": 0.2})
DEEP = Design(objective=Cosine(), encoder=MLP(6), align=Procrustes(100))


class Interrupted(Exception):
    pass


class Breaking(PlantedStream):
    """A stream that breaks off before batch `at`, whenever it is read so far."""

    at = STEPS

    def batches(self, state: PlantedState | None = None) -> Iterator[tuple[Activations, PlantedState]]:
        for batch, after in super().batches(state):
            if after.step > self.at:
                raise Interrupted
            yield batch, after


def run(folder: Path, at: int = STEPS, design: Design = APART) -> dict[str, Crosscoder]:
    groups = (Group(MODELS, 6, probability=0.1), Group(("rl",), 4, probability=0.1))
    world = World.build(MODELS, 16, groups, seed=0, noise=0.05)
    stream = Breaking(world, STEPS, 64, 1, torch.tensor([1.0, 0.5, 2.0]))
    object.__setattr__(stream, "at", at)
    made = {
        "apart": Crosscoder(MODELS, 16, 30, ReLU(weight=0.5), seed=0, design=design),
        "deep": Crosscoder(("base", "rl"), 16, 24, BatchTopK(k=2, dead_after_tokens=300, aux_k=2), seed=1, design=DEEP),
    }
    train(made, stream, SETTINGS, folder=folder, checkpoint_steps=7)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("at", [5, 12, 29])
def test_a_run_that_broke_off_ends_with_the_same_bytes(tmp_path: Path, at: int) -> None:
    run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", at)
    run(tmp_path / "broken")
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_a_checkpoint_of_another_design_is_not_taken_over(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, 12)
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
        run(tmp_path, design=APART.model_copy(update={"objective": DeltaMSE(-0.6)}))


def test_a_run_leaves_the_rotation_beside_a_crosscoder_in_the_models_own_bases(tmp_path: Path) -> None:
    made = run(tmp_path)["apart"]
    rotation = load_file(tmp_path / "apart" / "alignment.safetensors")["rotation"]
    eye = torch.eye(16)
    torch.testing.assert_close(rotation[0], eye)
    torch.testing.assert_close(rotation @ rotation.mT, eye.expand(3, -1, -1), atol=1e-5, rtol=0)
    turned = torch.einsum("fmd,mde->fme", made.W_dec.detach(), rotation)
    torch.testing.assert_close(turned[:4], turned[:4, :1].expand(-1, 3, -1), atol=1e-6, rtol=0)
    assert not made.W_dec[4:10, :2].any() and not made.W_enc[:2, :, 4:10].any()
    loaded = Crosscoder.load(tmp_path / "deep")
    assert loaded.design == DEEP and loaded.W_hidden is not None and loaded.W_hidden.any()
