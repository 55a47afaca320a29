from pathlib import Path

import pytest
import torch

from featdiff.crosscoder.checkpoint import Checkpoint, Checkpoints


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, False, {"weights": torch.full((3, 2), float(step)), "place": torch.tensor(step)})


def test_a_new_run_has_no_checkpoint(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "checkpoints", {}).newest({}) is None


def test_the_newest_is_read_and_the_last_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, {"seed": 1})
    for step in (5, 10, 100):
        checkpoints.write(checkpoint(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000010", "step-000000100"]
    found = checkpoints.newest({})
    assert found is not None and found.step == 100 and not found.fast_products
    assert torch.equal(found.tensors["weights"], torch.full((3, 2), 100.0)) and int(found.tensors["place"]) == 100


@pytest.mark.parametrize("name", ["tensors.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("kept", [None, 20])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, name: str, kept: int | None) -> None:
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.write(checkpoint(5))
    checkpoints.write(checkpoint(10))
    path = tmp_path / "step-000000010" / name
    content = path.read_bytes()
    path.unlink() if kept is None else path.write_bytes(content[:kept])
    found = checkpoints.newest({})
    assert found is not None and found.step == 5
    checkpoints.write(checkpoint(10))
    found = checkpoints.newest({})
    assert found is not None and found.step == 10


def test_a_half_written_checkpoint_does_not_count(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, {})
    (tmp_path / "checkpoint.part").mkdir()
    (tmp_path / "checkpoint.part" / "other.safetensors").write_bytes(b"half")
    assert checkpoints.newest({}) is None
    checkpoints.write(checkpoint(5))
    assert sorted(path.name for path in (tmp_path / "step-000000005").iterdir()) == [
        "checkpoint.json",
        "tensors.safetensors",
    ]


def test_the_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, {"lr": 1e-4, "models": ("base", "rl")}).write(checkpoint(5))
    assert Checkpoints(tmp_path, {"models": ["base", "rl"], "lr": 1e-4}).newest({}) is not None
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
        Checkpoints(tmp_path, {"lr": 2e-4, "models": ("base", "rl")}).newest({})


def test_tensors_may_share_memory(tmp_path: Path) -> None:
    buffer = torch.arange(6.0)
    Checkpoints(tmp_path, {}).write(
        Checkpoint(1, True, {"all": buffer, "rest": buffer[2:], "turned": buffer.view(2, 3).T})
    )
    found = Checkpoints(tmp_path, {}).newest({})
    assert found is not None and found.fast_products
    assert torch.equal(found.tensors["rest"], buffer[2:]) and torch.equal(found.tensors["turned"], buffer.view(2, 3).T)


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", {})
    checkpoints.write(checkpoint(1))
    checkpoints.remove()
    checkpoints.remove()
    assert not (tmp_path / "checkpoints").exists()
