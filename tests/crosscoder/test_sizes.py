"""Real files hold the bytes that follow from sizes."""

from pathlib import Path

import pytest
from safetensors import safe_open

from featdiff.crosscoder import BatchTopK, Crosscoder, JumpReLU, ReLU, Sparsity
from featdiff.crosscoder.checkpoint import Checkpoint, Checkpoints
from featdiff.crosscoder.sizes import CrosscoderSize
from featdiff.crosscoder.step import Learner


def tensor_bytes(file: Path) -> int:
    """Size of a safetensors file without its header."""
    with file.open("rb") as opened:
        return file.stat().st_size - 8 - int.from_bytes(opened.read(8), "little")


@pytest.mark.parametrize("sparsity", [ReLU(), BatchTopK(k=4), JumpReLU()])
def test_files_of_a_crosscoder_hold_the_expected_bytes(sparsity: Sparsity, tmp_path: Path) -> None:
    crosscoder = Crosscoder(("base", "sft", "rl"), 16, 48, sparsity)
    size = CrosscoderSize(3, 16, 48)
    assert sum(parameter.numel() for parameter in crosscoder.parameters()) == pytest.approx(
        size.file_bytes / 4, rel=0.02
    )
    crosscoder.save(tmp_path)
    assert tensor_bytes(tmp_path / "crosscoder.safetensors") == pytest.approx(size.file_bytes, rel=0.02)

    learner = Learner(crosscoder, lr=1e-3, betas=(0.9, 0.999), clip=1.0)
    Checkpoints(tmp_path / "checkpoints", {}).write(Checkpoint(1, False, learner.tensors()))
    (file,) = (tmp_path / "checkpoints").rglob("*.safetensors")
    with safe_open(file, framework="pt") as opened:
        assert "silent_tokens" in opened.keys()  # noqa: SIM118 -- safe_open is no mapping
    assert tensor_bytes(file) == pytest.approx(size.checkpoint_bytes, rel=0.03)


def test_the_papers_crosscoder_by_hand() -> None:
    assert CrosscoderSize(models=3, d_model=2560, features=32768).file_bytes == pytest.approx(4 * 503e6, rel=0.001)
