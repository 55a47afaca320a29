"""`train` and `quality`: files are as large as estimated, FLOPs and hours as by hand, memory as measured."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_study import changed

from featdiff.config.study_file import read_study
from featdiff.costs.crosscoders import quality, train, while_training
from featdiff.costs.estimate_inputs import Cost, Ground, ground_of
from featdiff.costs.options import PlanOptions
from featdiff.costs.stages import LIBRARIES
from featdiff.models.logits import AT_ONCE, LOGIT_BYTES
from featdiff.run.plan import Plan

MODELS = 11  # the base and five checkpoints of each paradigm


def flops(cost: Cost, part: str) -> float:
    return sum(work.flops for work in cost.parts[part])


def hours(ground: Ground, cost: Cost, part: str) -> float:
    return sum(work.seconds(ground.hardware) for work in cost.parts[part]) / 3600


def with_study(ground: Ground, **settings: object) -> Ground:
    return replace(ground, plan=Plan(changed(ground.plan.study, **settings)))


def test_the_folder_of_the_crosscoders_is_as_large_as_estimated(ran: Ground) -> None:
    folder = ran.plan.run.path("crosscoders")
    tensors = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    metrics = sum(file.stat().st_size for file in folder.rglob("metrics.jsonl"))
    assert tensors + metrics == pytest.approx(train(ran).stays, rel=0.1)


def test_the_harvest_of_the_papers_corpus_by_hand(paper: Ground) -> None:
    """400M tokens at 3.78 GFLOPs, of which half of the attention is what a causal mask would save."""
    found = flops(train(paper), "harvest")
    attention = 18 * 4 * 512 * 32 * 128
    assert found == pytest.approx(MODELS * 400.1e6 * (3.78e9 + attention), rel=0.005)
    assert hours(paper, train(paper), "harvest") == pytest.approx(MODELS * 1.06, rel=0.05)


def test_the_papers_joint_crosscoder_takes_the_hours_that_were_worked_out(paper: Ground) -> None:
    """40 minutes with 100 active features, and a dense beginning in float32."""
    joint = {"joint": {"models": ["base", "sft", "rl"]}}
    ground = with_study(paper, crosscoder__lineups=joint)
    assert hours(ground, train(ground), "crosscoders") == pytest.approx(40 / 60, rel=0.25)
    assert hours(ground, train(ground), "harvest") == pytest.approx(3 * 1.06, rel=0.05)


def test_every_model_is_harvested_once_however_many_crosscoders_read_it(paper: Ground) -> None:
    twice = {"one": {"models": ["base", "rl"]}, "other": {"models": ["base", "rl"], "seed": 1}}
    one, two = (
        with_study(paper, crosscoder__lineups=lineups, selection__lineup="one")
        for lineups in ({"one": twice["one"]}, twice)
    )
    assert flops(train(two), "harvest") == flops(train(one), "harvest")
    assert flops(train(two), "crosscoders") == 2 * flops(train(one), "crosscoders")


def test_a_corpus_that_does_not_fit_the_buffer_is_harvested_every_epoch(ran: Ground) -> None:
    def harvest(**settings: object) -> float:
        return flops(train(with_study(ran, activations__scale_tokens=1, **settings)), "harvest")

    assert harvest(training__epochs=3) == harvest()
    assert harvest(training__epochs=3, activations__buffer_mib=1) == pytest.approx(3 * harvest(), rel=1e-3)
    assert harvest(training__epochs=3, activations__buffer_mib=1, activations__cache="c") == harvest()


def test_a_cache_takes_the_streams_of_every_model_in_its_precision(paper: Ground) -> None:
    plain, kept = train(paper), train(with_study(paper, activations__cache="cache"))
    assert kept.stays - plain.stays == pytest.approx(400e6 * MODELS * 2560 * 2)


def test_devices_share_features_or_tokens_and_turns_save_memory(paper: Ground) -> None:
    one, two = (while_training(with_study(paper, training__feature_shards=n)) for n in (1, 2))
    state = "crosscoders, gradients, moments"
    assert two[state] == pytest.approx(one[state] / 2, rel=1e-4)
    tokens = while_training(replace(paper, hardware=replace(paper.hardware, devices=2)))
    assert tokens[state] == one[state] and tokens["a step"] == one["a step"] / 2
    turns = while_training(with_study(paper, lineup__turns=True))
    assert turns["models up to the tap"] == one["models up to the tap"] / MODELS
    elsewhere = while_training(with_study(paper, lineup__devices={"rl-1": "cuda:1", "rl-2": "cuda:2"}))
    assert elsewhere["models up to the tap"] == one["models up to the tap"] * (MODELS - 2) / MODELS


def test_quality_reads_the_prompts_and_runs_each_crosscoders_models_to_the_end(ran: Ground) -> None:
    shape, tokens = ran.model.shape, 3 * 48 * ran.assumed.item_tokens
    read = 3 * tokens * shape.forward(64, layers=2, head=False)
    spliced = (3 + 2) * 3 * tokens * shape.forward(64, layers=2)
    coded = 4 * 2 * tokens * 64 * 32 * (3 + 2)
    assert flops(quality(ran), "fit") == pytest.approx(read + spliced + coded)


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
        ground = ground_of(study, PlanOptions())
        peaks.append(float(done.stdout.split()[-1]))
        estimates.append(sum(train(ground).memory.values()))
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


def test_logits_are_held_of_as_many_rows_as_are_spliced_at_a_time(paper: Ground) -> None:
    a_row = LOGIT_BYTES * 1024 * paper.model.shape.vocabulary
    assert paper.splicing_memory(16 * 1024, 1024)["logits"] == a_row > AT_ONCE
    short = paper.splicing_memory(16 * 1024, 16)["logits"]
    assert AT_ONCE - a_row / 64 < short <= AT_ONCE
