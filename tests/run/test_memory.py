"""Memory of training is foreseen, said in one line, refused where it is not there, and kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import changed

from featdiff.run.memory import allowed, check_memory, memory_of_training, number_in, return_freed_memory
from featdiff.run.plan import Plan
from featdiff.run.sizes import sizes_of
from featdiff.run.train import train

MIB = 2**20
FEATURES = 4096


def foreseen(plan: Plan, **settings: object) -> dict[str, dict[str, float]]:
    return memory_of_training(sizes_of(Plan(changed(plan.study, **settings))))


def test_the_copy_for_a_checkpoint_and_the_steps_side_by_side_are_those_of_the_crosscoders(fresh: Plan) -> None:
    lineups = {"joint": {"models": ["base", "sft", "rl"]}, "base-rl": {"models": ["base", "rl"]}}
    settings: dict[str, object] = {
        "corpus__held_out_tokens": 100,
        "crosscoder__lineups": lineups,
        "crosscoder__features": FEATURES,
        "training__batch_size": 400,
    }
    parts = foreseen(fresh, **settings, threads=2)["cpu"]
    parameters = [2 * FEATURES * 32 * models + FEATURES + 32 * models for models in (3, 2)]
    copy = parts["copy for a checkpoint, held-out streams"]
    assert copy == pytest.approx(12 * sum(parameters) + 2 * 8 * FEATURES, rel=1e-3)
    alone = foreseen(fresh, **settings, threads=1)["cpu"]
    assert parts["a step"] - alone["a step"] == pytest.approx(4 * 400 * (9 * FEATURES + 4 * 64))


def test_what_the_allocator_keeps_is_a_share_of_all_else_up_to_a_limit(fresh: Plan) -> None:
    for features in (256, 2**20):
        parts = foreseen(fresh, crosscoder__features=features)["cpu"]
        rest = sum(parts.values()) - parts["kept by the allocator"]
        assert parts["kept by the allocator"] == pytest.approx(min(0.7 * rest, 512 * MIB))


def test_with_an_accelerator_the_host_holds_the_corpus_and_the_copy(fresh: Plan) -> None:
    large: dict[str, object] = {
        "crosscoder__features": FEATURES,
        "lineup__device": "cuda",
        "corpus__held_out_tokens": 100,
    }
    found = foreseen(fresh, **large)
    assert found.keys() == {"cuda", "cpu"}
    assert found["cpu"]["corpus"] == 9 * 6_100
    assert found["cpu"].keys() & found["cuda"].keys() == {"kept by the allocator"}
    turns = foreseen(fresh, **large, lineup__turns=True)["cuda"]
    assert turns["models up to the tap"] * 5 == pytest.approx(found["cuda"]["models up to the tap"])
    own = foreseen(fresh, **large, lineup__devices={"sft-1": "cuda:1"})["cuda"]
    assert own["models up to the tap"] < found["cuda"]["models up to the tap"]


def test_training_says_what_it_needs_and_is_refused_before_anything_is_loaded(
    fresh: Plan, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_memory(fresh)
    line = capfd.readouterr().err
    assert line.startswith("memory: at most 0.0") and line.count("\n") == 1
    monkeypatch.setattr("featdiff.run.memory.free_memory", lambda device: 7.0 * MIB)
    with pytest.raises(ValueError, match=r"^training needs \d\.\d\d GiB on cpu \(models .*, and 0\.01 are free; lower"):
        train(fresh, tmp_path / "crosscoders")
    assert not (tmp_path / "crosscoders").exists()


def test_a_base_of_unknown_shape_is_said_and_not_refused(fresh: Plan, capfd: pytest.CaptureFixture[str]) -> None:
    check_memory(Plan(changed(fresh.study, lineup__base="owner/unknown")))
    assert capfd.readouterr().err == "memory: not foreseen, since the shape of owner/unknown is not known\n"


@pytest.mark.parametrize(("limit", "expected"), [("1000", 1000.0 - 600.0 + 50.0), ("max", None)])
def test_a_control_group_allows_its_limit_less_what_is_in_use(
    tmp_path: Path, limit: str, expected: float | None
) -> None:
    assert allowed(tmp_path) is None
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.stat").write_text("anon 500\nfile 100\ninactive_file 50\n")
    assert allowed(tmp_path) == expected


def test_numbers_are_read_by_their_name_and_unit(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  99 kB\nMemAvailable:   12 kB\n")
    assert number_in(tmp_path / "meminfo", "MemAvailable:", 1024) == 12 * 1024
    assert number_in(tmp_path / "meminfo", "Swap:") is None
    assert number_in(tmp_path / "absent") is None


def test_returning_freed_memory_disturbs_nothing() -> None:
    kept = bytearray(b"kept") * MIB
    return_freed_memory()
    assert kept == bytearray(b"kept") * MIB


RUN = f"""
import sys
from pathlib import Path
import torch
from tiny_study import changed
from featdiff.run.memory import memory_of_training, number_in
from featdiff.run.plan import Plan
from featdiff.run.sizes import sizes_of
from featdiff.run.train import train
from featdiff.config.study_file import read_study

def memory(what):
    return number_in(Path("/proc/self/status"), what, 1024)

def trained(name, **settings):
    plan = Plan(changed(read_study(Path(sys.argv[1])), runs=sys.argv[2], name=name, **settings))
    before = memory("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    plan.run.path("crosscoders").mkdir(parents=True)
    train(plan, plan.run.path("crosscoders"))
    return plan, memory("VmHWM:") - before

torch.set_num_threads(1)
trained("warm-up")  # imports and compiled loops are there from now on
plan, used = trained(
    "real", crosscoder__features={FEATURES}, corpus__tokens=3000, training__checkpoint_minutes=1e-4
)
(parts,) = memory_of_training(sizes_of(plan)).values()
print(used, sum(parts.values()))
"""


@pytest.mark.slow
def test_training_keeps_within_the_memory_that_is_foreseen(study_file: Path, tmp_path: Path) -> None:
    """Also while it writes a checkpoint after every step. Resident memory is what the system counts, so that blocks
    which the allocator holds back belong to it."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs /proc/self/clear_refs")
    ended = subprocess.run(
        [sys.executable, "-c", RUN, str(study_file), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    assert ended.returncode == 0, ended.stderr
    used, stated = map(float, ended.stdout.split())
    assert stated / 3 < used <= stated
