"""The benchmark of a harvest on a GPU, at a size and on a device that tell nothing about speed."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from gpu_borders import PATHS, timed
from gpu_harvest import SIZES, harvested, text
from own import start_near_the_truth
from task import Shape

from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_contestant_gives_the_same_activations_and_a_record() -> None:
    records = harvested(SIZES["tiny"], rounds=2, device="cpu", flops_per_second=1e12)
    assert [each.who for each in records] == ["featdiff", "transformers", "transformers, no LM head"]
    assert records[0].ratio == 1
    # 2 blocks of 4 * 8 * 32 * 2 + 2 * 8 * 32 * 2 + 3 * 32 * 96 weights, 64 tokens
    products = 2 * 2 * (3072 + 9216) * 64
    assert records[0].share_of_bfloat16 == pytest.approx(products / records[0].median_seconds / 1e12)
    document = {"gpu": "none", "torch": "0", "transformers": "0", "command": "x", "limits": {"flops_per_second": 1e12}}
    table = text(document | {"records": [asdict(each) for each in records]})
    assert len({line.count("|") for line in table.splitlines()[2:]}) == 1


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_timed_at_the_share_that_was_asked_for(path: str) -> None:
    shape = Shape(models=2, d_model=16, features=200, tokens=64)
    crosscoder = Crosscoder(("model0", "model1"), 16, 200, ReLU(weight=1.0))
    rows, batch = crosscoder.W_dec.detach().clone(), torch.randn(64, 2, 16)
    start_near_the_truth(crosscoder, rows, batch, 6)
    share, seconds = timed(path, shape, rows, [batch], 6, rounds=2, steps=2)  # pyright: ignore[reportArgumentType]  (one of PATHS)
    assert share == pytest.approx(6 / 200, rel=0.2) and len(seconds) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["gpu_harvest.py", "gpu_borders.py"])
def test_without_a_gpu_it_says_so_in_one_line(name: str) -> None:
    done = subprocess.run([sys.executable, BENCHMARKS / name], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and "CUDA" in done.stderr
