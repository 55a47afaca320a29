"""Training under torchrun: who does what, what is refused, and what becomes of a job that loses a process."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_study import STUDY, write_tiny_study

from featdiff import torchrun
from featdiff.config.study_file import read_study
from featdiff.crosscoder.distributed import joined
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.run.plan import Plan
from featdiff.run.train import train
from featdiff.workflow.cli import main


def started(monkeypatch: pytest.MonkeyPatch, *, rank: int, processes: int) -> None:
    """Let this process look as if torchrun had started it."""
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", processes)):
        monkeypatch.setenv(name, str(value))


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (torchrun.rank(), torchrun.processes(), torchrun.joined()) == (0, 1, False)
    with joined("cpu", 1) as ranks:
        assert type(ranks) is Ranks


def test_with_torchrun_a_process_knows_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, rank=3, processes=4)
    assert (torchrun.rank(), torchrun.local_rank(), torchrun.processes()) == (3, 3, 4)


@pytest.mark.parametrize("processes, shards", [(1, 2), (4, 3), (2, 4)])
def test_processes_that_cannot_divide_the_features_are_refused(
    monkeypatch: pytest.MonkeyPatch, processes: int, shards: int
) -> None:
    started(monkeypatch, rank=0, processes=processes)
    with pytest.raises(ValueError, match=f"give torchrun a multiple of {shards}"), joined("cpu", shards):
        pass


@pytest.mark.parametrize("device, reason", [("cuda:1", "must be cpu or cuda"), ("mps", "must be cpu or cuda")])
def test_a_device_that_is_no_one_s_own_is_refused(monkeypatch: pytest.MonkeyPatch, device: str, reason: str) -> None:
    started(monkeypatch, rank=0, processes=2)
    with pytest.raises(ValueError, match=reason), joined(device, 1):
        pass


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("arguments", [["run", "study.toml"], ["report", "study.toml"], ["demo"], []])
def test_only_train_takes_several_processes_and_the_first_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], rank: int
) -> None:
    started(monkeypatch, rank=rank, processes=2)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = "featdiff: several processes can only train together; start the other verbs without torchrun\n"
    assert capsys.readouterr().err == ("" if rank else said)


# ------------------------------------------------------------------ real jobs


def job(study: Path, *flags: str) -> subprocess.Popen[str]:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "featdiff", "train"]
    return subprocess.Popen(
        [sys.executable, *command, str(study), *flags],
        cwd=study.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def process_of(parent: int, rank: int) -> int:
    """Id of the process that torchrun, itself process `parent`, has started with a rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if ours and f"RANK={rank}" in (folder / "environ").read_text().split("\0"):
                return int(folder.name)
        except OSError:  # it has ended
            continue
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a job in /proc")
def test_a_job_that_loses_a_process_ends_with_a_word_and_goes_on_when_it_is_started_again(tmp_path: Path) -> None:
    without_dynamics = re.sub(r"\[crosscoder.lineups.dynamics-\w+\]\nmodels = .*\n", "", STUDY)
    path = write_tiny_study(tmp_path, without_dynamics.replace("[training]", "[training]\nepochs = 3"))
    crosscoders = tmp_path / "runs" / "tiny" / "crosscoders"
    partial = crosscoders.with_name("crosscoders.partial")

    first = job(path, "--training.checkpoint-minutes", "1e-9")
    while not list(partial.glob("checkpoints/step-*[0-9]")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    os.kill(process_of(first.pid, rank=1), signal.SIGKILL)
    output, errors = first.communicate(timeout=120)
    assert first.returncode == 1 and output == "" and not crosscoders.exists()
    lines = [line for line in errors.splitlines() if line.startswith("featdiff: ")]
    assert len(lines) == 1 and re.match(r"featdiff: rank 0 (lost another process|was told to end)", lines[0])
    assert lines[0].endswith("; start the same command again, and training goes on from its last checkpoint")
    assert re.search(r"Root Cause.*rank +: 1 .*SIGKILL", errors, re.DOTALL)
    assert list(partial.glob("checkpoints/step-*[0-9]"))

    second = job(path, "--training.feature-shards", "2")  # the tokens were divided before
    output, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    assert output == "runs/tiny/crosscoders\n"
    assert not partial.exists()

    train(Plan(read_study(path)), tmp_path / "alone")
    for name in ("joint", "base-rl"):
        files = [{file.name for file in (folder / name).iterdir()} for folder in (crosscoders, tmp_path / "alone")]
        assert files[0] == files[1]
    # Of the two only BatchTopK's: at this learning rate ReLU's kink makes much of a single rounding.
    weights = Path("joint", "crosscoder.safetensors")
    found, wanted = load_file(crosscoders / weights), load_file(tmp_path / "alone" / weights)
    for key, tensor in wanted.items():
        assert float((found[key] - tensor).norm()) <= 1e-5 * float(tensor.norm()), key
