"""Training that is killed at any moment and started again ends with the bytes of training that nothing disturbed.

This file, when it is run, is a process that imports and compiles all it needs, by training once, and then forks one
process per training, so that one costs a fraction of a second. It computes in one thread: a fork loses all others.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tiny_study import contents, moved, random_model, save_model

from featdiff.activations.stream import ActivationStream
from featdiff.config.study import ActivationSettings, TrainingSettings
from featdiff.crosscoder import BatchTopK, Crosscoder, ReLU
from featdiff.crosscoder.trainer import train
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup

KILLS = 50


class Forks:
    """Trainings in processes of their own, one at a time."""

    def __init__(self, models: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(models)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def start(self, folder: Path) -> int:
        """Begin or go on with the training in a folder; the id of its process."""
        assert self.process.stdin is not None
        print(folder, file=self.process.stdin, flush=True)
        return int(self._line())

    def ended(self) -> int:
        """How the training ended, once it has: 0, or minus the signal."""
        return int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process that forks is gone"
        return line


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    base = random_model(seed=0)
    save_model(base, tmp_path / "base")
    save_model(moved(base, 1.0, 1), tmp_path / "rl")
    forks = Forks(tmp_path)
    with forks.process:
        yield forks
        forks.process.kill()


@pytest.mark.slow
def test_fifty_kills_at_random_moments_change_no_byte(forks: Forks, tmp_path: Path) -> None:
    forks.start(tmp_path / "undisturbed")
    began = time.monotonic()
    assert forks.ended() == 0
    seconds, wanted = time.monotonic() - began, contents(tmp_path / "undisturbed")
    assert {"joint/crosscoder.safetensors", "pair/crosscoder.safetensors"} <= wanted.keys()

    moments, reached, folder = random.Random(0), Counter[str](), tmp_path / "killed"
    for attempt in range(3 * KILLS):
        process = forks.start(folder)
        time.sleep(moments.uniform(0, seconds))
        if attempt % 5 == 0:
            wait_for_a_write(folder)
        with suppress(ProcessLookupError):  # it has ended
            os.kill(process, signal.SIGKILL)
        if forks.ended() == -signal.SIGKILL:
            reached[how_far(folder)] += 1
        forks.start(folder)
        assert forks.ended() == 0
        assert contents(folder) == wanted, reached
        shutil.rmtree(folder)
        if reached.total() == KILLS:
            break
    assert reached.total() == KILLS, reached
    assert {"before the first checkpoint", "in a checkpoint", "between checkpoints"} <= reached.keys(), reached
    assert max(reached.values()) <= 0.8 * KILLS, reached


def wait_for_a_write(folder: Path) -> None:
    """Return when a checkpoint is being written, as it is some hundredths of a second later, unless training ends."""
    end = time.monotonic() + 0.2
    while not (folder / "checkpoints" / "checkpoint.part").exists() and time.monotonic() < end:
        pass


def how_far(folder: Path) -> str:
    """Where a killed training stood."""
    if (folder / "joint" / "crosscoder.safetensors").is_file():
        return "writing its results"
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    if any(name.endswith(".part") for name in names):
        return "in a checkpoint"
    return "between checkpoints" if names else "before the first checkpoint"


def trained(lineup: Lineup, folder: Path) -> None:
    """Two crosscoders of a lineup on one stream, half of which fits its buffer; a checkpoint every other step."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 512, (64, 64), dtype=torch.int32, generator=generator)
    starts = torch.rand(ids.shape, generator=generator) < 0.05
    starts[:, 0] = True
    settings = ActivationSettings(batch_size=16, buffer_mib=1, scale_tokens=1_000)
    stream = ActivationStream(lineup, Corpus(ids, starts), settings, batch_size=128, epochs=1, seed=0)
    crosscoders = {
        "joint": Crosscoder(lineup.names, lineup.d_model, 96, BatchTopK(8, dead_after_tokens=1_000), seed=0),
        "pair": Crosscoder(lineup.names[:2], lineup.d_model, 64, ReLU(weight=0.2), seed=1),
    }
    training = TrainingSettings(batch_size=128, lr=1e-2, log_every=1)
    train(crosscoders, stream, training, folder=folder, checkpoint_steps=2)


def serve(models: Path) -> None:
    """Train in each folder that is read from stdin, in a process of its own; say its id, then how it ended."""
    torch.set_num_threads(1)
    folders = {"base": "base", "rl": "rl", "base-again": "base", "rl-again": "rl"}
    lineup = Lineup.load({name: str(models / folder) for name, folder in folders.items()}, layer=2)
    trained(lineup, models / "first")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                trained(lineup, Path(line.rstrip("\n")))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
