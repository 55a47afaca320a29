"""A run that is killed in the middle of a stage and started again ends with the bytes of an undisturbed one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_study import contents, write_posttrained_study

pytestmark = pytest.mark.slow

FOLDERS = {
    "sft": "posttrain/sft",
    "grpo": "posttrain/grpo",
    "evaluate": "evaluation",
    "train": "crosscoders",
    "quality": "quality",
    "select": "selection",
    "intervene": "interventions",
    "ways": "ways",
    "report": "figures",
}
MADE_AT_A_TIME = {"provenance.json", "report.html", ".lock"}  # these hold hours and durations, or nothing
LIMIT = 120.0  # seconds that a run may take before a test gives it up


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with post-training whose stages take a second or so; states of training are kept all the time."""
    path = write_posttrained_study(tmp_path_factory.mktemp("resume"), prompts=24)
    text = path.read_text().replace("log_every = 5", "log_every = 1\ncheckpoint_minutes = 0.0001")
    text = text.replace("[posttrain]\n", "[posttrain]\ncheckpoints = 4\n").replace("checkpoints = 2\n\n", "\n")
    text = text.replace("tokens = 6_000", "tokens = 20_000").replace("batch_size = 256", "batch_size = 128")
    path.write_text(text.replace("controls = 6", "controls = 40"))
    return path


@pytest.fixture(scope="module")
def undisturbed(study: Path) -> Path:
    """The run folder of a run that nothing disturbed."""
    process = started(study, study.parent / "undisturbed")
    assert process.wait(LIMIT) == 0
    return study.parent / "undisturbed" / "tiny"


def started(study: Path, runs: Path) -> subprocess.Popen[bytes]:
    """`featdiff run` in a process of its own; what it says goes to `runs`/said."""
    runs.mkdir(exist_ok=True)
    with (runs / "said").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "featdiff", "run", str(study), "--runs", str(runs)],
            stdout=said,
            stderr=said,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )


def killed_when(study: Path, runs: Path, reached: Callable[[], bool], delay: float) -> None:
    """Start the run and kill it `delay` seconds after a condition holds."""
    process = started(study, runs)
    end = time.monotonic() + LIMIT
    while not reached():
        assert process.poll() is None and time.monotonic() < end, (runs / "said").read_text()
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


def begun(undisturbed: Path, runs: Path, stage: str, and_all_later: bool) -> Path:
    """A run in which `stage` is yet to be made, or all from it on; the folder that the stage will write."""
    shutil.copytree(undisturbed, runs / "tiny")
    for name in list(FOLDERS)[list(FOLDERS).index(stage) :] if and_all_later else [stage]:
        shutil.rmtree(runs / "tiny" / FOLDERS[name])
    return runs / "tiny" / (FOLDERS[stage] + ".partial")


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def results(run: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(run).items() if name not in MADE_AT_A_TIME | {"study.json"}}


REACHED: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "sft after its first checkpoint": ("sft", lambda partial: (partial / "checkpoint-1").is_dir()),
    "sft between checkpoints": ("sft", lambda partial: lines(partial / "log.jsonl") >= 7),
    "grpo between checkpoints": ("grpo", lambda partial: lines(partial / "log.jsonl") >= 10),
    "evaluate after two tasks": ("evaluate", lambda partial: len(list(partial.glob("*/*.parquet"))) >= 2),
    "train at its beginning": ("train", lambda partial: partial.is_dir()),
    "train after some steps": ("train", lambda partial: lines(partial / "joint" / "metrics.jsonl") >= 10),
    "train near its end": ("train", lambda partial: lines(partial / "joint" / "metrics.jsonl") >= 100),
    "train while quality is measured": ("train", lambda partial: (partial / "stream.json").is_file()),
    "intervene after two tasks": ("intervene", lambda partial: len(list(partial.glob("*/*.json"))) >= 2),
    "report at its beginning": ("report", lambda partial: partial.is_dir()),
}


@pytest.mark.parametrize("moment", REACHED)
def test_a_killed_run_goes_on_to_the_same_bytes(study: Path, undisturbed: Path, tmp_path: Path, moment: str) -> None:
    stage, reached = REACHED[moment]
    partial = begun(undisturbed, tmp_path, stage, and_all_later=moment == "sft between checkpoints")
    killed_when(study, tmp_path, lambda: reached(partial), delay=0.02)
    assert partial.is_dir() and not (tmp_path / "tiny" / FOLDERS[stage]).exists()
    assert started(study, tmp_path).wait(LIMIT) == 0, (tmp_path / "said").read_text()
    wanted, found = results(undisturbed), results(tmp_path / "tiny")
    assert [name for name in wanted if found.get(name) != wanted[name]] == []
    assert found.keys() == wanted.keys()


def test_the_undisturbed_run_holds_what_is_compared(undisturbed: Path) -> None:
    names = results(undisturbed).keys()
    assert {f"crosscoders/{name}/crosscoder.safetensors" for name in ("joint", "base-rl", "dynamics-rl")} <= names
    assert {f"posttrain/{one}/checkpoint-{k}/model.safetensors" for one in ("sft", "grpo") for k in (1, 2)} <= names
