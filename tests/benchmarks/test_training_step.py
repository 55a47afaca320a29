import json
import subprocess
import sys

import pytest
import training_step
from rows import Row, rows_of
from training_step import groups

PEER = """
import time, torch

class CrossCoder:
    def encode(self, x):
        return torch.ones(len(x), 5)

    def decode(self, features):
        return torch.zeros(len(features), 2, 32)

class Trainer:
    def __init__(self, cfg, model_A, model_B, all_tokens):
        self.buffer, self.crosscoder, self.taken = Buffer(cfg, model_A, model_B, all_tokens), CrossCoder(), 0

    def step(self):
        assert self.buffer.next().shape == (128, 2, 32)
        time.sleep(0.05)
        print("a trainer may print what it likes")
        self.taken += 1
        if self.taken == {LAST}:
            raise RuntimeError("out of luck")
"""
"""Stands for ckkissane's code: every step takes 50 ms of wall time and hardly any CPU time."""


@pytest.fixture
def peer(tmp_path):
    def write(last: int = 1000):
        (tmp_path / "trainer.py").write_text(PEER.replace("{LAST}", str(last)))
        return f"ckkissane={tmp_path}"

    return write


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(training_step.__file__), "--shape", "tiny", "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_run_gives_a_record_per_trainer(peer) -> None:
    done = run("--own", "sparse", "--peer", peer(), "--l0", "8", "--rounds", "2", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    found = {record["name"]: record for record in document["records"]}
    assert set(found) == {"featdiff sparse", "ckkissane"}
    for record in found.values():
        assert record["median_seconds"] > 0 and record["cpu_seconds"] > 0
        assert record["peak_mib"] > record["imports_mib"] > 20
        assert record["ratio"] > 0
    own, other = found["featdiff sparse"], found["ckkissane"]
    assert own["ratio"] == 1 and own["l0"][0] == pytest.approx(8, rel=0.02) and own["unexplained"][0] < 1
    # The planted trainer sleeps 50 ms per step, reconstructs nothing, and has five features.
    assert 0.05 <= other["median_seconds"] < 0.08 and other["cpu_seconds"] < 0.02
    assert other["ratio"] == pytest.approx(other["median_seconds"] / own["median_seconds"])
    assert other["l0"] == [5, 5] and other["unexplained"][0] == pytest.approx(1, abs=0.05)
    assert "ckkissane=PATH" in document["command"]
    assert document["machine"]["threads"] == 1 and document["shape"]["features"] == 256


def test_a_peer_that_fails_is_named_in_one_line(peer) -> None:
    done = run("--own", "--peer", peer(last=2), "--l0", "8", "--rounds", "1")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.splitlines()[-1] == (
        "training_step.py: ckkissane ended with status 1: RuntimeError: out of luck"
    )


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        ("sae-lense", "peer 'sae-lense' is unknown; use one of ckkissane, crosscoder_learning, crosscoder_learning:"),
        ("ckkissane:batchtopk=x", "peer 'ckkissane:batchtopk=x' is unknown"),
        ("ckkissane", "no trainer.py in no folder; give --peer ckkissane=FOLDER, a checkout of it"),
        ("crosscode+tuned=nowhere", "no crosscode/trainers/base_trainer.py in nowhere; give --peer crosscode+tuned="),
        ("sae-lens=folder", "sae-lens is taken from an environment, not from folder; give --python sae-lens=PYTHON"),
    ],
)
def test_a_peer_that_is_not_there_is_refused_in_one_line(peer: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        rows_of([], [peer], False, [])
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


def test_a_peer_that_is_not_installed_is_refused_in_one_line(tmp_path) -> None:
    # An interpreter that finds no module at all.
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(ValueError, match=rf"^sae-lens is not installed for {python}; pip install sae-lens in an .*$"):
        rows_of([], ["sae-lens"], False, [f"sae-lens={python}"])
    with pytest.raises(ValueError, match=r"^nowhere/python cannot be run: No such file or directory$"):
        rows_of([], ["sae-lens"], False, ["sae-lens=nowhere/python"])


def test_refusals_reach_the_command_line() -> None:
    done = run("--peer", "ckkissane")
    assert done.returncode == 1 and not done.stdout
    assert (
        done.stderr == "training_step.py: no trainer.py in no folder; give --peer ckkissane=FOLDER, a checkout of it\n"
    )


def test_tuned_measures_every_peer_twice(peer) -> None:
    named = rows_of(["sparse"], [peer()], True, [])
    assert [row.name for row in named] == ["featdiff sparse", "ckkissane", "ckkissane+tuned"]
    assert [row.tuned for row in named] == [False, False, True]
    with pytest.raises(ValueError, match="named twice"):
        rows_of([], [peer(), peer()], False, [])


def test_the_yardsticks_take_part_in_every_group(peer) -> None:
    def row(name: str) -> Row:
        return Row(name, name, "", False, "", "")

    rows = [row(name) for name in ("featdiff sparse", "a", "b", "featdiff auto-dense", "c")]
    named = [[row.name for row in group] for group in groups(rows, 2)]
    assert named == [
        ["featdiff sparse", "featdiff auto-dense", "a", "b"],
        ["featdiff sparse", "featdiff auto-dense", "c"],
    ]
    assert groups(rows[:1], 2) == [rows[:1]]
