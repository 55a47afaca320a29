import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from featdiff.config.study import GRPOSettings
from featdiff.data.prompts import Prompt
from featdiff.files import read_json
from featdiff.models.loading import ModelSource
from featdiff.posttraining.arguments import Training
from featdiff.posttraining.grpo import train_grpo
from featdiff.posttraining.rewards import Reward

SETTINGS = GRPOSettings(
    lr=1e-2,
    prompts_per_generation=8,
    prompts_per_step=4,
    micro_batch_size=8,
    rollouts=4,
    max_completion_length=4,
    epochs=1.5,
)
PROMPTS = [Prompt(str(n), f"{n % 7}+{n % 5}=" + "?" * (n % 3), str(n % 7 + n % 5)) for n in range(27)]


def digits(completion: str, answer: str) -> float:
    """The share of digits in the completion."""
    return sum(sign.isdigit() for sign in completion) / max(len(completion), 1)


def train(base: str, folder: Path, settings: GRPOSettings = SETTINGS, reward: Reward = digits) -> None:
    train_grpo(Training(ModelSource(base), folder, 5, 3, state_minutes=0.0), PROMPTS, settings, reward)


def weights(folder: Path) -> list[bytes]:
    return [(folder / f"checkpoint-{number}" / "model.safetensors").read_bytes() for number in (1, 2, 3)]


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grpo")
    train(base, folder)
    return folder


def test_prompts_after_the_last_full_generation_are_left_out_and_counted(undisturbed: Path) -> None:
    counts = read_json(undisturbed / "examples.json")
    # 1.5 epochs of 27 prompts are 40: five generations of eight prompts, each worth two steps of four.
    assert (counts["used"], counts["too_long"], counts["seen"], counts["steps"]) == (27, 0, 40, 10)
    assert [line["step"] for line in log(undisturbed)] == list(range(1, 11))


def test_one_policy_samples_a_generation_and_every_rollout_meets_its_own_answer(base: str, tmp_path: Path) -> None:
    seen: list[str] = []

    def remember(completion: str, answer: str) -> float:
        seen.append(answer)
        return digits(completion, answer)

    train(base, tmp_path, reward=remember)
    groups = [seen[first : first + 4] for first in range(0, len(seen), 4)]
    assert len(groups) == 40 and all(len(set(group)) == 1 for group in groups)
    rewarded = [line["step"] for line in log(tmp_path) if "reward" in line]
    assert rewarded == [1, 3, 5, 7, 9]  # the second step of a generation samples nothing


def test_the_reward_rises(base: str, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 6.0, "prompts_per_step": 8, "micro_batch_size": 32})
    train(base, tmp_path, settings)
    rewards = [line["reward"] for line in log(tmp_path)]
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.2


def test_equal_rewards_teach_nothing(base: str, tmp_path: Path) -> None:
    train(base, tmp_path, reward=lambda completion, answer: 1.0)
    trained, before = (load_file(f / "model.safetensors") for f in (tmp_path / "checkpoint-3", Path(base)))
    assert all((trained[name] == before[name]).all() for name in before)


def test_two_undisturbed_runs_give_the_same_bytes_and_print_nothing(
    base: str, undisturbed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(base, tmp_path)
    assert weights(tmp_path) == weights(undisturbed)
    assert (tmp_path / "log.jsonl").read_bytes() == (undisturbed / "log.jsonl").read_bytes()
    assert capfd.readouterr().out == ""


def test_a_finished_run_loads_as_a_model_and_holds_no_pickle(undisturbed: Path) -> None:
    files = [path for path in undisturbed.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".safetensors"}
    model = AutoModelForCausalLM.from_pretrained(undisturbed / "checkpoint-3")
    tokenizer = AutoTokenizer.from_pretrained(undisturbed / "checkpoint-3")
    assert model.config.vocab_size == len(tokenizer) and not list(undisturbed.glob("state*"))


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import test_grpo as test

asked = 0
def deadly(completion, answer):
    global asked
    asked += 1
    if asked == {rollout}:
        os.kill(os.getpid(), signal.SIGKILL)
    return test.digits(completion, answer)

if {rollout} == 0:  # the second step of the third generation
    from featdiff.posttraining.checkpoints import Checkpoints
    keep = Checkpoints._keep
    def deadly_keep(self, state, objects):
        if state.global_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        keep(self, state, objects)
    Checkpoints._keep = deadly_keep
test.train({base!r}, Path({folder!r}), reward=deadly)
"""


@pytest.mark.parametrize("rollout", [0, 100], ids=["between two steps of a generation", "while rollouts are scored"])
def test_a_killed_run_ends_with_the_same_bytes(base: str, undisturbed: Path, tmp_path: Path, rollout: int) -> None:
    script = KILLED.format(base=base, folder=str(tmp_path), rollout=rollout, tests=str(Path(__file__).parent))
    killed = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [path.name for path in tmp_path.glob("state-*")] == ["state-4" if rollout == 0 else "state-6"]
    train(base, tmp_path)
    assert weights(tmp_path) == weights(undisturbed)
    assert (tmp_path / "log.jsonl").read_bytes() == (undisturbed / "log.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_completion_length": 64}, "no prompt leaves room for a completion of 64 tokens in the model's 64"),
        ({"prompts_per_generation": 64}, "prompts_per_generation is 64, but training sees only 40 prompts"),
        ({"prompts_per_generation": 32, "prompts_per_step": 32}, "makes 1 optimizer steps, too few for 3 checkpoints"),
        ({"vllm": True}, "vllm is not installed"),
    ],
)
def test_settings_that_cannot_work_are_refused(base: str, tmp_path: Path, change: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        train(base, tmp_path, SETTINGS.model_copy(update=change))
