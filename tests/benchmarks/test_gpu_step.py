"""The benchmark of a step on a GPU, at sizes and on a device that tell nothing about speed."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from gpu_step import TRAINERS, Active, Limits, Work, dense_work, measured, record, sparse_work, text
from task import Shape

GPU_STEP = Path(__file__).parents[2] / "benchmarks" / "gpu_step.py"
LIMITS = Limits(flops_per_second=1e12, bytes_per_second=1e11)


def test_the_work_of_a_step_at_the_papers_shape() -> None:
    shape = Shape(models=3, d_model=2560, features=32_768, tokens=1024)
    assert dense_work(shape) == Work(flops=2_576_980_377_600, adam_bytes=28 * 503_316_480)
    sparse = sparse_work(shape, Active(pairs=100 * 1024, touched=0.5))
    assert sparse == Work(flops=515_396_075_520 + 7_864_320_000, adam_bytes=26 * 503_316_480)


def test_a_record_compares_medians_with_the_sparse_step_and_with_the_limits() -> None:
    found = record("dense", (0.5, 0.1, 0.2), 0.05, 3.0, Work(flops=1e11, adam_bytes=4e9), LIMITS, tokens=1000)
    assert (found.median_seconds, found.fastest_seconds, found.slowest_seconds) == (0.2, 0.1, 0.5)
    assert found.ratio == pytest.approx(4)
    assert found.share_of_bfloat16 == pytest.approx(0.5) and found.share_of_bandwidth == pytest.approx(0.2)
    assert found.paper_hours == pytest.approx(400_000 * 0.2 / 3600)


def test_every_trainer_takes_its_turns() -> None:
    shape = Shape(models=2, d_model=16, features=200, tokens=64)
    records = measured(shape, 4, rounds=2, steps=2, device="cpu", limits=LIMITS)
    assert [each.trainer for each in records] == list(TRAINERS)
    assert all(each.l0 is None if each.trainer == "autocast" else 1 < (each.l0 or 0) < 12 for each in records)
    table = text(
        {
            "gpu": "none",
            "torch": "0",
            "triton": "0",
            "command": "gpu_step.py",
            "limits": asdict(LIMITS),
            "records": [asdict(each) for each in records],
        }
    )
    assert len({line.count("|") for line in table.splitlines()[2:]}) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    done = subprocess.run([sys.executable, GPU_STEP], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and "CUDA" in done.stderr
