import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from featdiff.activations.stream import Activations
from featdiff.config.crosscoder import BatchTopK, JumpReLU, ReLU
from featdiff.config.study import TrainingSettings
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.trainer import Trainer, learning_rate, sparsity_ramp, train
from featdiff.planted import Group, PlantedState, PlantedStream, World

MODELS = ("base", "sft", "rl")
STEPS = 30
SETTINGS = TrainingSettings(batch_size=64, lr=3e-3, log_every=10)


def world() -> World:
    groups = (Group(MODELS, 6, probability=0.1), Group(("rl",), 4, probability=0.1))
    return World.build(MODELS, 16, groups, seed=0, noise=0.05)


def stream() -> PlantedStream:
    return PlantedStream(world(), STEPS, 64, seed=1, scale=torch.tensor([1.0, 0.5, 2.0]))


def crosscoders() -> dict[str, Crosscoder]:
    return {
        "joint": Crosscoder(MODELS, 16, 24, ReLU(weight=0.5), seed=0),
        "pair": Crosscoder(("base", "rl"), 16, 24, BatchTopK(k=2, dead_after_tokens=300, aux_k=2), seed=1),
    }


def run(folder: Path, of: PlantedStream | None = None, settings: TrainingSettings = SETTINGS) -> dict[str, Crosscoder]:
    trained = crosscoders()
    train(trained, of or stream(), settings, folder=folder, checkpoint_steps=7)
    return trained


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Interrupted(Exception):
    pass


class Interrupting(PlantedStream):
    """A stream that breaks off before batch `at`."""

    at = 0

    def batches(self, state: PlantedState | None = None) -> Iterator[tuple[Activations, PlantedState]]:
        for batch, after in super().batches(state):
            if after.step > self.at:
                raise Interrupted
            yield batch, after


def interrupted(at: int) -> Interrupting:
    broken = Interrupting(world(), STEPS, 64, seed=1, scale=stream().scale)
    object.__setattr__(broken, "at", at)
    return broken


def test_a_run_leaves_weights_config_and_metrics_and_nothing_else(tmp_path: Path) -> None:
    trained = run(tmp_path)
    assert set(contents(tmp_path)) == {
        f"{name}/{file}"
        for name in ("joint", "pair")
        for file in ("config.json", "crosscoder.safetensors", "metrics.jsonl")
    }
    loaded = Crosscoder.load(tmp_path / "pair")
    assert torch.equal(loaded.W_dec, trained["pair"].W_dec)
    assert torch.equal(loaded.scale, torch.tensor([1.0, 2.0]))  # the slice of its own two models
    assert loaded.threshold > 0
    torch.testing.assert_close(loaded.decoder_norms(), torch.ones(24))
    assert trained["pair"].W_dec.grad is None


def test_metrics_have_a_line_at_the_start_at_every_interval_and_at_the_end(tmp_path: Path) -> None:
    run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "joint" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 10, 20, 30]
    assert lines[-1]["variance_explained"] > lines[0]["variance_explained"]
    assert lines[0]["lr"] == 3e-3 and lines[-1]["lr"] == pytest.approx(3e-3 / 6)
    assert set(lines[0]) == {
        *("step", "reconstruction", "sparsity", "l0", "dead_share", "variance_explained", "sparsity_ramp", "lr")
    }


def test_the_history_is_what_the_metrics_hold_and_a_folder_changes_nothing(tmp_path: Path) -> None:
    written, free = crosscoders(), crosscoders()
    history = train(written, stream(), SETTINGS, folder=tmp_path)
    lines = (tmp_path / "pair" / "metrics.jsonl").read_text().splitlines()
    assert history["pair"] == [json.loads(line) for line in lines]
    assert train(free, stream(), SETTINGS) == history
    assert all(torch.equal(free[name].W_dec, written[name].W_dec) for name in free)


def test_a_trainer_gives_a_record_where_one_is_due_and_counts_its_steps() -> None:
    trainer = Trainer(crosscoders(), stream(), SETTINGS)
    found = [(trainer.step, set(records)) for records in trainer.steps() if records]
    assert found == [(step, {"joint", "pair"}) for step in (1, 10, 20, 30)]


def test_the_history_of_a_resumed_run_has_the_records_before(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, interrupted(20))
    resumed = train(crosscoders(), stream(), SETTINGS, folder=tmp_path)
    assert [record["step"] for record in resumed["joint"]] == [1, 10, 20, 30]


@pytest.mark.parametrize("at", [3, 7, 8, 20, 29, 30])
def test_a_run_that_broke_off_ends_with_the_same_bytes(tmp_path: Path, at: int) -> None:
    run(tmp_path / "whole")
    if at < STEPS:
        with pytest.raises(Interrupted):
            run(tmp_path / "broken", interrupted(at))
    run(tmp_path / "broken")
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import test_trainer as t
class Announcing(t.PlantedStream):
    def batches(self, state=None):
        for batch, after in super().batches(state):
            if after.step == int(sys.argv[3]):
                print("there", flush=True)
                sys.stdin.readline()
            yield batch, after
s = t.stream()
t.run(Path(sys.argv[2]), Announcing(s.world, s.steps, s.batch_size, s.seed, s.scale))
"""


@pytest.mark.parametrize("step", [5, 16])
def test_a_killed_process_that_is_started_again_ends_with_the_same_bytes(tmp_path: Path, step: int) -> None:
    run(tmp_path / "whole")
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", KILLED, here, str(tmp_path / "killed"), str(step)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "killed" / "joint" / "crosscoder.safetensors").exists()
    run(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_lines_beyond_the_checkpoint_and_half_lines_are_dropped_on_resume(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", interrupted(12))  # checkpoint at 7, metrics until 10
    with (tmp_path / "broken" / "joint" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "recons')
    run(tmp_path / "broken")
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_training_together_gives_the_same_bits_as_training_alone(tmp_path: Path) -> None:
    together = run(tmp_path / "together")
    for name, alone in crosscoders().items():
        train({name: alone}, stream(), SETTINGS, folder=tmp_path / name)
        assert torch.equal(alone.W_dec, together[name].W_dec)


def test_a_checkpoint_of_other_settings_is_not_taken_over(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, interrupted(12))
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
        run(tmp_path, settings=TrainingSettings(batch_size=64, lr=1e-3, log_every=10))


def test_a_checkpoint_keeps_its_scales_and_is_not_taken_over_by_other_activations(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, interrupted(12))
    rounded = PlantedStream(world(), STEPS, 64, seed=1, scale=stream().scale * (1 + 1e-6))
    others = PlantedStream(world(), STEPS, 64, seed=1, scale=stream().scale * 1.01)
    with pytest.raises(ValueError, match="belong to a run on other activations; delete that folder"):
        run(tmp_path, others)
    assert torch.equal(run(tmp_path, rounded)["joint"].scale, stream().scale)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_stop_the_run_and_name_their_model(tmp_path: Path, value: float) -> None:
    class Broken(PlantedStream):
        def batches(self, state: PlantedState | None = None) -> Iterator[tuple[Activations, PlantedState]]:
            for batch, after in super().batches(state):
                batch.values[3, 1, 2] = value
                yield batch, after

    with pytest.raises(ValueError, match="activations of sft hold NaN or infinity at step 0"):
        run(tmp_path, Broken(world(), STEPS, 64, seed=1, scale=stream().scale))
    assert not (tmp_path / "joint" / "crosscoder.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_crosscoder(tmp_path: Path) -> None:
    broken = crosscoders()
    with torch.no_grad():
        broken["pair"].W_dec[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"the loss of crosscoder 'pair' is not finite at step 0; lower training\.lr"):
        train(broken, stream(), SETTINGS, folder=tmp_path)


def test_a_model_that_the_stream_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="add dpo to the lineup"):
        train(
            {"pair": Crosscoder(("base", "dpo"), 16, 4)},
            stream(),
            SETTINGS,
            folder=tmp_path,
        )


def test_an_empty_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no batch"):
        run(tmp_path, PlantedStream(world(), 0, 64, seed=1, scale=stream().scale))


def test_the_learning_rate_falls_linearly_over_the_last_share() -> None:
    settings = TrainingSettings(lr=1.0, decay=0.2)
    rates = [learning_rate(settings, step, 100) for step in (0, 79, 80, 90, 99, 100, 120)]
    assert rates == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.05, 0.0, 0.0])
    assert learning_rate(TrainingSettings(lr=1.0, decay=0.0), 99, 100) == 1.0


def test_the_penalty_rises_linearly_over_the_first_share() -> None:
    ramp = [sparsity_ramp(ReLU(warmup=0.05), step, 1000) for step in (0, 25, 50, 999)]
    assert ramp == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert sparsity_ramp(ReLU(warmup=0.0), 0, 1000) == 1.0
    assert sparsity_ramp(BatchTopK(), 0, 1000) == 1.0
    assert [sparsity_ramp(JumpReLU(), step, 1000) for step in (0, 500, 1000)] == [0.0, 0.5, 1.0]
