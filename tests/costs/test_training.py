"""`train`: files are as large as estimated, FLOPs and hours as by hand, memory as measured."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from planned import paper, planned, varied
from tiny_study import changed
from torch.utils.flop_counter import FlopCounterMode

from featdiff.config.study_file import read_study
from featdiff.costs.estimate import CostInputs, Work
from featdiff.costs.training import cost, dense_steps, exchange, harvest, sparse_steps, training
from featdiff.crosscoder import Crosscoder, ReLU
from featdiff.crosscoder.sizes import CrosscoderSize
from featdiff.models.logits import LOGIT_BYTES
from featdiff.run.plan import Plan
from featdiff.workflow.estimate_table import LIBRARIES

MODELS = 11  # the base and five checkpoints of each paradigm
PAPER = CrosscoderSize(models=3, d_model=2560, features=32768)


def steps_of(inputs: CostInputs) -> Work:
    """Training of all crosscoders, over the paper's 390,625 batches."""
    return sum((training(inputs, one, 390_625) for one in inputs.plan.crosscoders.values()), Work())


def test_the_folder_of_the_crosscoders_is_as_large_as_estimated(tiny: Plan) -> None:
    folder = tiny.run.path("crosscoders")
    tensors = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    metrics = sum(file.stat().st_size for file in folder.rglob("metrics.jsonl"))
    assert tensors + metrics == pytest.approx(cost(planned(tiny.study)).stays, rel=0.5)


def test_a_dense_step_takes_the_five_products_that_autograd_does() -> None:
    crosscoder = Crosscoder(("base", "rl"), 128, 256, ReLU())
    with FlopCounterMode(display=False) as counter:
        crosscoder.loss(torch.randn(16, 2, 128)).total.backward()
    expected = dense_steps(paper(), CrosscoderSize(2, 128, 256), tokens=16, steps=1).flops
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.005)  # the penalty takes a product of width 1


@pytest.mark.parametrize(("tokens", "l0", "sparse", "dense"), [(1024, 87, 10.75, 59.8), (4096, 100, 22.09, 208.5)])
def test_steps_on_an_h100_take_as_long_as_measured(tokens: int, l0: float, sparse: float, dense: float) -> None:
    """Milliseconds of docs/benchmarks.md, at the paper's shape."""
    inputs = paper("H100")
    assert 1e3 * sparse_steps(inputs, PAPER, tokens, 1, l0).seconds == pytest.approx(sparse, rel=0.25)
    assert 1e3 * dense_steps(inputs, PAPER, tokens, 1).seconds == pytest.approx(dense, rel=0.25)


@pytest.mark.parametrize(
    ("size", "sparse", "dense"),
    [(CrosscoderSize(2, 256, 4096), 27.8, 114.0), (CrosscoderSize(3, 1024, 16384), 427.0, 2877.0)],
    ids=["small", "medium"],
)
def test_steps_on_a_core_take_as_long_as_measured(
    size: CrosscoderSize, sparse: float, dense: float, tiny: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Milliseconds of one core of a Zen 5, batches of 1,024, with 64 active features per token."""
    monkeypatch.setenv("FEATDIFF_CALIBRATION", "/nowhere")
    core = varied(planned(tiny.study), threads=1)
    assert 1e3 * sparse_steps(core, size, 1024, 1, l0=64).seconds == pytest.approx(sparse, rel=0.5)
    assert 1e3 * dense_steps(core, size, 1024, 1).seconds == pytest.approx(dense, rel=0.55)


def test_devices_send_gradients_or_reconstructions() -> None:
    def sent(gpus: int, shards: int) -> float:
        inputs = paper(gpus=gpus, training__feature_shards=shards)
        rate = 0.9 * inputs.hardware.link
        return exchange(inputs, PAPER, 1024, steps=1).seconds * rate

    assert sent(1, 1) == 0
    assert sent(4, 1) == pytest.approx(4 * 2 * 3 / 4 * PAPER.file_bytes)
    assert sent(4, 4) == pytest.approx(4 * 2 * 3 / 4 * 4 * 1024 * 3 * 2560)
    assert sent(8, 4) == pytest.approx(8 * 2 * 4 * (PAPER.file_bytes / 4 / 4 / 2 + 512 * 3 * 2560 * 3 / 4))


def test_the_harvest_of_the_papers_corpus_by_hand() -> None:
    """400M tokens at 3.78 GFLOPs, of which half of the attention is what a causal mask would save."""
    found = harvest(paper())
    attention = 18 * 4 * 512 * 32 * 128
    assert found.flops == pytest.approx(MODELS * 400e6 * (3.78e9 + attention), rel=0.005)
    assert found.seconds / 3600 == pytest.approx(MODELS * 1.06, rel=0.05)


def test_the_papers_joint_crosscoder_takes_the_hours_that_were_worked_out() -> None:
    """40 minutes with 100 active features, and a dense beginning in float32; 7 more for what a step takes at least."""
    inputs = paper(crosscoder__lineups={"joint": {"models": ["base", "sft", "rl"]}})
    assert steps_of(inputs).seconds / 3600 == pytest.approx(47 / 60, rel=0.5)
    assert harvest(inputs).seconds / 3600 == pytest.approx(3 * 1.06, rel=0.05)


def test_every_model_is_harvested_once_however_many_crosscoders_read_it() -> None:
    twice = {"one": {"models": ["base", "rl"]}, "other": {"models": ["base", "rl"], "seed": 1}}
    one, two = (
        paper(crosscoder__lineups=lineups, selection__lineup="one") for lineups in ({"one": twice["one"]}, twice)
    )
    assert harvest(two) == harvest(one)
    assert steps_of(two).flops == 2 * steps_of(one).flops


def test_a_corpus_that_does_not_fit_the_buffer_is_harvested_every_epoch(tiny: Plan) -> None:
    def flops(**settings: object) -> float:
        return harvest(varied(planned(tiny.study), **settings)).flops

    assert flops(training__epochs=3) == flops()
    assert flops(training__epochs=3, activations__buffer_mib=1) == pytest.approx(3 * flops())
    assert flops(training__epochs=3, activations__buffer_mib=1, activations__cache="c") == flops()


def test_a_cache_takes_the_streams_of_every_model_in_its_precision() -> None:
    plain, kept = cost(paper()), cost(paper(activations__cache="cache"))
    assert kept.stays - plain.stays == pytest.approx(400e6 * MODELS * 2560 * 2)


# Not ru_maxrss: a new process begins with the peak of the one that started it.
MEASURE = """
import json, re, sys
from pathlib import Path
from featdiff.workflow.runner import run_verb
from featdiff.config.study_file import validated
run_verb(validated(json.loads(sys.argv[1]), "test"), "train")
print(1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak of a process has other units")
def test_training_takes_the_memory_that_was_estimated(study_file: Path, tmp_path: Path) -> None:
    """A large dictionary against a small one, each in a process of its own: the libraries are in both."""
    sparsity = {"kind": "batchtopk", "k": 12, "dead_after_tokens": 10_000_000}
    peaks, estimates = [], []
    for features in (64, 16_384):
        study = changed(
            read_study(study_file),
            runs=str(tmp_path / str(features)),
            corpus__tokens=2048,
            crosscoder__features=features,
            crosscoder__sparsity=sparsity,
        )
        command = [sys.executable, "-c", MEASURE, study.model_dump_json()]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout.split()[-1]))
        estimates.append(cost(planned(study)).peak)
    assert (estimates[1] - estimates[0]) / (peaks[1] - peaks[0]) == pytest.approx(1.0, abs=0.35)
    assert LIBRARIES + estimates[0] == pytest.approx(peaks[0], rel=0.35)
    assert LIBRARIES + estimates[1] == pytest.approx(peaks[1], rel=0.35)


SPLICE = """
import torch
from pathlib import Path
from featdiff.crosscoder.metrics import spliced_losses
torch.set_num_threads(1)
head, residual = torch.randn(16, 8192), torch.randn(4, 512, 16)
labels, keep = torch.randint(0, 8192, (4, 512)), torch.ones(4, 512, dtype=torch.bool)

def kib(name):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(name))

for some in (slice(8), slice(512)):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    held, part = kib("VmRSS:"), residual[:, some]
    spliced_losses(lambda x: x @ head, part, part + 0.1, part.mean(dim=(0, 1)), labels[:, some], keep[:, some])
print(1024 * (kib("VmHWM:") - held))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a part of a process is Linux's to tell")
def test_comparing_three_passes_takes_the_memory_that_was_estimated() -> None:
    done = subprocess.run([sys.executable, "-c", SPLICE], check=True, capture_output=True, text=True)
    assert float(done.stdout) == pytest.approx(LOGIT_BYTES * 4 * 512 * 8192, rel=0.15)
