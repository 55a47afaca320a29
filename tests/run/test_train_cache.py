"""Training over a cache: the same bytes, the models run over the corpus once, and a spoilt cache ends in one line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_study import changed, contents
from torch import Tensor

from featdiff.config.study_file import read_study
from featdiff.files import read_json
from featdiff.models.loading import Lineup
from featdiff.run.plan import Plan
from featdiff.run.train import train
from featdiff.workflow.cli import main
from featdiff.workflow.registry import stages_of


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Rows that each model has run up to the tap, by its name."""
    counts: dict[str, int] = {}
    residuals = Lineup.residuals

    def counted(
        self: Lineup, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        for name in self.names:
            counts[name] = counts.get(name, 0) + len(input_ids)
        return residuals(self, input_ids, attention_mask, position_ids)

    monkeypatch.setattr(Lineup, "residuals", counted)
    return counts


@pytest.fixture(scope="module")
def filled(tiny: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache of all that the study reads, and the crosscoders that were trained beside it."""
    folder = tmp_path_factory.mktemp("filled")
    train(Plan(changed(tiny.study, activations__cache=str(folder / "cache"))), folder / "crosscoders")
    return folder


@pytest.fixture
def cache(filled: Path, tmp_path: Path) -> Path:
    """A copy of the cache, to be spoilt."""
    return Path(shutil.copytree(filled / "cache", tmp_path / "cache"))


@pytest.fixture
def refused(study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """Calls `featdiff train` with a cache; returns its last line. It must end with exit code 2 and no crosscoder."""

    def refused(cache: Path) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["train", str(study_file), "--runs", str(tmp_path / "runs"), "--activations.cache", str(cache)])
        said = capsys.readouterr()
        assert end.value.code == 2 and said.out == ""
        *announced, line = said.err.splitlines()
        assert announced[0] == "train" and line.startswith("featdiff: ") and "Traceback" not in said.err
        assert not (tmp_path / "runs" / "tiny" / "crosscoders").exists()
        return line

    return refused


def test_the_cache_changes_no_byte_when_it_is_filled_nor_when_it_is_read(
    tiny: Plan, filled: Path, tmp_path: Path, forwards: dict[str, int]
) -> None:
    wanted = contents(tiny.run.path("crosscoders"))
    del wanted["stage.json"]
    assert contents(filled / "crosscoders") == wanted
    train(Plan(changed(tiny.study, activations__cache=str(filled / "cache"))), tmp_path)
    assert contents(tmp_path) == wanted
    assert max(forwards.values()) < read_json(tmp_path / "stream.json")["counts"]["seen"] / 64  # held-out rows only


def test_models_run_over_the_corpus_once_under_all_their_names(
    fresh: Plan, tmp_path: Path, forwards: dict[str, int]
) -> None:
    lineups = {"joint": {"models": ["base", "sft", "sft-2", "rl"]}}
    smaller = changed(fresh.study, crosscoder__lineups=lineups, corpus__tokens=2_000, corpus__held_out_tokens=500)
    plan = Plan(changed(smaller, activations__cache=str(tmp_path / "cache")))
    train(plan, tmp_path / "filling")
    first = dict(forwards)
    train(plan, tmp_path / "reading")
    rows = read_json(tmp_path / "reading" / "stream.json")["counts"]["seen"] // 64
    harvested = {name: 2 * first[name] - forwards[name] for name in first}
    # sft-2 is sft, in one folder; one forward pass more tells the form.
    assert harvested == {"base": rows + 16, "sft": rows + 16, "sft-2": 0, "rl": rows + 16}


def test_a_sweep_point_of_fewer_models_and_other_settings_is_served(
    fresh: Plan, filled: Path, tmp_path: Path, forwards: dict[str, int]
) -> None:
    """Another dictionary, learning rate, shuffle and rule for sinks, of two of the five models."""
    lineups = {"pair": {"models": ["base", "rl-1"], "features": 32, "seed": 3}}
    study = changed(
        fresh.study,
        crosscoder__lineups=lineups,
        training__lr=3e-3,
        activations__sink_multiple=1.5,
        selection__model="rl-1",
    )
    train(Plan(study), tmp_path / "streamed")
    streamed = dict(forwards)
    train(Plan(changed(study, activations__cache=str(filled / "cache"))), tmp_path / "cached")
    assert contents(tmp_path / "cached") == contents(tmp_path / "streamed")
    counts = read_json(tmp_path / "cached" / "stream.json")["counts"]
    rows, calibrating = counts["seen"] // 64, 16
    assert counts["sinks_dropped"] > 0
    assert all(2 * streamed[name] - forwards[name] == rows + calibrating for name in ("base", "rl-1"))


def test_a_cache_makes_no_run_stale(tiny: Plan, filled: Path) -> None:
    study = changed(tiny.study, activations__cache=str(filled / "cache"))
    assert stages_of(Plan(study)) == stages_of(tiny)


def test_the_folder_is_found_beside_the_study(study_file: Path, tmp_path: Path) -> None:
    text = study_file.read_text().replace("[activations]", '[activations]\ncache = "kept"')
    (tmp_path / "other.toml").write_text(text)
    assert read_study(tmp_path / "other.toml").activations.cache == str(tmp_path / "kept")
    assert read_study(study_file).activations.cache is None


def test_a_damaged_shard_ends_the_command_with_its_name(refused: Callable[[Path], str], cache: Path) -> None:
    path = sorted(cache.rglob("*.safetensors"))[2]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert f"{path} is damaged" in refused(cache)
    path.write_bytes(data[:-1])
    assert f"{path} is damaged" in refused(cache)
    path.unlink()
    assert f"{path} is missing" in refused(cache)


def test_a_foreign_shard_ends_the_command_with_its_name(refused: Callable[[Path], str], cache: Path) -> None:
    first, second = sorted(cache.rglob("*.safetensors"))[:2]
    shutil.copyfile(second, first)
    assert f"{first} belongs to another cache" in refused(cache)


def test_a_full_disk_ends_the_command_before_anything_is_cached(
    refused: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("featdiff.activations.cache.shutil.disk_usage", lambda path: usage._replace(free=1_000_000))
    assert "take 0.00" in (line := refused(tmp_path / "cache")) and "0.001 GB are free" in line
    assert not list((tmp_path / "cache").glob("*/*"))
