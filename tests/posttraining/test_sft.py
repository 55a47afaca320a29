import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from featdiff.config.study import SFTSettings
from featdiff.files import read_json
from featdiff.models.loading import ModelSource
from featdiff.posttraining.arguments import Training
from featdiff.posttraining.sft import IGNORED, tokenized, train_sft
from featdiff.posttraining.teacher import Trace, Traces

SETTINGS = SFTSettings(lr=1e-2, batch_size=8, micro_batch_size=4, warmup=0.2, epochs=1.5)


def some_traces(count: int = 40) -> Traces:
    sums = ((n % 7, n % 5) for n in range(count))
    return Traces(tuple(Trace(str(n), f"{a}+{b}=", " " * (n % 3) + str(a + b)) for n, (a, b) in enumerate(sums)), 0, 0)


def train(base: str, folder: Path, settings: SFTSettings = SETTINGS, traces: Traces | None = None) -> None:
    train_sft(Training(ModelSource(base), folder, 5, 3, state_minutes=0.0), traces or some_traces(), settings)


def weights(folder: Path) -> list[bytes]:
    return [(folder / f"checkpoint-{number}" / "model.safetensors").read_bytes() for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def undisturbed(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    train(base, folder)
    return folder


def test_the_loss_is_on_the_completion_and_its_end_token_after_the_prompt_as_the_tokenizer_takes_it(base: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    example = tokenized(Trace("0", "2+", "4"), tokenizer)
    assert example["input_ids"][:-2] == tokenizer("2+")["input_ids"] == [2, 5, 13]  # <bos> 2 +
    assert example["labels"] == [IGNORED] * 3 + [7, 1]  # 4 <eos>
    assert tokenized(Trace("0", "2+", "4<eos>"), tokenizer) == example


def test_the_first_loss_is_the_mean_over_completion_tokens_of_the_bases_surprise(base: str, undisturbed: Path) -> None:
    one_step = SFTSettings(lr=1e-2, batch_size=40, micro_batch_size=8)
    folder = undisturbed.parent / "one-step"
    train_sft(Training(ModelSource(base), folder, seed=0, checkpoints=1), some_traces(), one_step)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    surprise: list[float] = []
    for trace in some_traces().kept:
        prompt = tokenizer(trace.prompt)["input_ids"]
        ids = prompt + tokenizer(trace.completion, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        surprise += [-log_probs[place - 1, ids[place]].item() for place in range(len(prompt), len(ids))]
    first = read_json_lines(folder / "log.jsonl")[0]
    assert first["loss"] == pytest.approx(sum(surprise) / len(surprise), rel=1e-5)


def read_json_lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_training_learns_the_traces(undisturbed: Path) -> None:
    log = read_json_lines(undisturbed / "log.jsonl")
    assert [line["step"] for line in log] == list(range(1, 9))  # 1.5 epochs of 40 traces, 8 a step, the last step half
    assert log[-1]["loss"] < log[0]["loss"] - 0.5


def test_two_undisturbed_runs_give_the_same_bytes_and_print_nothing(
    base: str, undisturbed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(base, tmp_path)
    assert weights(tmp_path) == weights(undisturbed)
    assert (tmp_path / "log.jsonl").read_bytes() == (undisturbed / "log.jsonl").read_bytes()
    assert capfd.readouterr().out == ""


def test_a_finished_run_is_left_alone_and_holds_no_pickle(base: str, undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    train(base, undisturbed)
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before
    assert {path.suffix for path in before if path.is_file()} == {".json", ".jsonl", ".safetensors"}
    assert {path.name for path in undisturbed.iterdir() if path.is_dir()} == {f"checkpoint-{n}" for n in (1, 2, 3)}


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import test_sft as test
from featdiff.posttraining import checkpoints
from transformers import PreTrainedTokenizerFast

calls = 0
def dies_at(call, function):
    def replacement(*arguments, **keywords):
        global calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)
    return replacement

if {moment!r} == "publishing":  # weights of the second checkpoint are written, its tokenizer is not
    PreTrainedTokenizerFast.save_pretrained = dies_at(2, PreTrainedTokenizerFast.save_pretrained)
else:  # the fourth state has no generators yet
    from featdiff.posttraining import state
    state._generators = dies_at(4, state._generators)
test.train({base!r}, Path({folder!r}))
"""


def test_a_run_in_bfloat16_trains_float32_weights_and_publishes_bfloat16(base: str, tmp_path: Path) -> None:
    train_sft(Training(ModelSource(base, "bfloat16"), tmp_path, seed=5, checkpoints=3), some_traces(), SETTINGS)
    published = load_file(tmp_path / "checkpoint-3" / "model.safetensors")
    assert {weight.dtype for weight in published.values()} == {torch.bfloat16}
    losses = [line["loss"] for line in read_json_lines(tmp_path / "log.jsonl")]
    assert losses[-1] < losses[0] - 0.5


def test_a_run_killed_after_its_last_checkpoint_is_finished(base: str, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "killed")
    (tmp_path / "killed" / "state-7").mkdir()
    train(base, tmp_path / "killed")
    assert weights(tmp_path / "killed") == weights(undisturbed) and not list(tmp_path.glob("killed/state-*"))


@pytest.mark.parametrize("moment", ["publishing", "saving a state"])
def test_a_killed_run_ends_with_the_same_bytes(base: str, undisturbed: Path, tmp_path: Path, moment: str) -> None:
    script = KILLED.format(base=base, folder=str(tmp_path), moment=moment, tests=str(Path(__file__).parent))
    killed = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert list(tmp_path.glob("*.partial")) and list(tmp_path.glob("state-*"))
    train(base, tmp_path)
    assert weights(tmp_path) == weights(undisturbed)
    assert (tmp_path / "log.jsonl").read_bytes() == (undisturbed / "log.jsonl").read_bytes()
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob("state*"))


def test_traces_that_are_too_long_are_left_out_and_counted(base: str, tmp_path: Path) -> None:
    long = Trace("long", "x" * 60, "12345")
    train(base, tmp_path, SETTINGS, Traces((*some_traces().kept, long), 0, 0))
    counts = read_json(tmp_path / "examples.json")
    assert (counts["used"], counts["too_long"], counts["seen"], counts["steps"]) == (40, 1, 60, 8)


def test_traces_that_are_all_too_long_are_refused(base: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="all 40 traces are longer than 3 tokens"):
        train(base, tmp_path, SETTINGS.model_copy(update={"max_length": 3}))


def test_a_batch_that_is_no_multiple_of_the_micro_batch_is_refused(base: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size 8 must be a multiple of micro_batch_size 3"):
        train(base, tmp_path, SETTINGS.model_copy(update={"micro_batch_size": 3}))
