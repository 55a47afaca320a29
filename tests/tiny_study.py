"""A real study that runs in seconds: random models over the demo's tokenizer, some text, three tasks."""

import json
import random
import shutil
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from featdiff.config.study import Study
from featdiff.config.study_file import validated
from featdiff.run.plan import Plan
from featdiff.workflow import registry

ITEMS = 48
CHOICES = 4
BLOCKS = 4
D_MODEL = 32
TASKS = {"colours": "train", "animals": "far", "numbers": "unseen"}
WORDS = {
    "colours": ["red", "green", "blue", "white", "black", "brown", "grey", "pink"],
    "animals": ["cat", "dog", "fox", "cow", "hen", "owl", "bee", "ant"],
    "numbers": ["one", "two", "three", "four", "five", "six", "seven", "eight"],
}
SENTENCES = ["the {} saw a {} near the {}", "add {} to {} and you get {}", "why is the {} not {} but {}"]

STUDY = """\
name = "tiny"
seed = 0
threads = 1

[lineup]
base = "base"
layer = 2

[lineup.tuned]
sft = "sft"
rl = "rl"

[lineup.checkpoints]
sft = ["sft-1", "sft"]
rl = ["rl-1", "rl"]

[evaluation]
task_folder = "tasks"
tasks = [
  { name = "colours", role = "train" },
  { name = "animals", role = "far" },
  { name = "numbers", role = "unseen" },
]

[corpus]
tokens = 6_000
held_out_tokens = 1_000
context = 64
sources = [
  { path = "traces.jsonl", share = 0.5 },
  { path = "prose.txt", share = 0.5 },
]

[activations]
batch_size = 16
scale_tokens = 1_000

[crosscoder]
features = 64
sparsity = { kind = "batchtopk", k = 12, dead_after_tokens = 2_000 }

[crosscoder.lineups.joint]
models = ["base", "sft", "rl"]

[crosscoder.lineups.base-rl]
models = ["base", "rl"]
sparsity = { kind = "relu", weight = 0.2 }

[crosscoder.lineups.dynamics-sft]
models = ["base", "sft-1", "sft-2"]

[crosscoder.lineups.dynamics-rl]
models = ["base", "rl-1", "rl-2"]

[training]
batch_size = 256
lr = 1e-2
log_every = 5
accept_poor_fit = true # 24 steps: the thresholds have not settled

[dynamics]
top = 10

[selection]
null_draws = 20
redraws = 6

[intervention]
controls = 6
doses = [0.0, 1.0]
dose_controls = 2
neutral_tokens = 256
side_controls = 1
bootstrap = 200

[ways]
controls = 4
tried_controls = 2
examined = 2
neuron_shares = [0.01, 0.05]
strengths = [0.5, 1.0]
moved_share = 0.1
"""


POSTTRAIN = """
[posttrain]
prompts = "prompts.jsonl"
teacher = "teacher.jsonl"
reward = "contains"
checkpoints = 2

[posttrain.sft]
lr = 1e-3
batch_size = 2
micro_batch_size = 2
max_length = 64

[posttrain.grpo]
lr = 1e-3
prompts_per_generation = 4
prompts_per_step = 2
micro_batch_size = 4
rollouts = 2
max_completion_length = 8
"""


def write_posttrained_study(folder: Path, prompts: int = 12) -> Path:
    """Write a study that makes its tuned models itself, from the random base; the path of the study.

    A fifth of the teacher's traces lack the answer.
    """
    given, rest = STUDY.split("[lineup.tuned]")[0], STUDY.split("[evaluation]")[1]
    path = write_tiny_study(folder, given + POSTTRAIN + "\n[evaluation]" + rest)
    rng = random.Random(0)
    rows = [{"id": f"p{n}", "prompt": f"{n}: {sentence(rng)}?", "answer": "e"} for n in range(prompts)]
    write_jsonl(folder / "prompts.jsonl", rows)
    traces = [{"id": row["id"], "completion": " no" if n % 5 == 4 else " yes"} for n, row in enumerate(rows)]
    write_jsonl(folder / "teacher.jsonl", traces)
    return path


def write_tiny_study(folder: Path, study: str = STUDY) -> Path:
    """Write models, text, tasks and `tiny.toml` into a folder; the path of the study."""
    save_models(folder)
    write_text(folder)
    write_tasks(folder / "tasks")
    path = folder / "tiny.toml"
    path.write_text(study)
    return path


def changed(study: Study, **settings: object) -> Study:
    """The study with settings laid over it, by their paths: `training__lr=1e-4`; None takes a setting out."""
    tree = study.model_dump(mode="json")
    for path, value in settings.items():
        *sections, last = path.split("__")
        section = tree
        for name in sections:
            section = section[name]
        section[last] = value
    return validated(tree, "test")


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their paths in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def save_models(folder: Path) -> None:
    """A random base, and two tuned models with a checkpoint half-way: the base moved along two random directions."""
    base = random_model(seed=0)
    save_model(base, folder / "base")
    for seed, name in enumerate(("sft", "rl"), 1):
        save_model(moved(base, 0.5, seed), folder / f"{name}-1")
        save_model(moved(base, 1.0, seed), folder / name)


def random_model(seed: int, *, hidden_size: int = D_MODEL, num_hidden_layers: int = BLOCKS) -> Qwen3ForCausalLM:
    """A model over the demo's tokenizer."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=512,
        hidden_size=hidden_size,
        intermediate_size=64,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight *= 3.0 if ".layers." in name and weight.ndim == 2 else 1.0  # what was read decides what is answered
    return model


def moved(model: Qwen3ForCausalLM, share: float, seed: int) -> Qwen3ForCausalLM:
    """The model with every matrix moved by twice `share` of its own size, in a direction drawn by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    copy = Qwen3ForCausalLM(model.config).eval()
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        for weight in copy.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight += 2.0 * share * weight.std() * noise if weight.ndim == 2 else 0.0
    return copy


def save_model(model: Qwen3ForCausalLM, folder: Path) -> None:
    """Save a model beside the demo's tokenizer."""
    model.save_pretrained(folder)
    packaged = Path(str(files("featdiff.demo"))) / "base"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(packaged / name, folder / name)


def write_text(folder: Path) -> None:
    """`traces.jsonl` and `prose.txt`, some thousand tokens each."""
    rng = random.Random(0)
    write_jsonl(folder / "traces.jsonl", ({"text": sentence(rng) + ". " + sentence(rng)} for _ in range(300)))
    (folder / "prose.txt").write_text("\n".join(sentence(rng) for _ in range(600)) + "\n")


def sentence(rng: random.Random) -> str:
    words = [word for group in WORDS.values() for word in group]
    return rng.choice(SENTENCES).format(*rng.sample(words, 3))


def write_tasks(folder: Path) -> None:
    """Three multiple-choice tasks of `ITEMS` items and `CHOICES` choices each, with data beside the task files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in WORDS.items():
        rng = random.Random(name)
        items = [
            {
                "question": f"{number}: {sentence(rng)}? answer:",
                "choices": [f" {word}" for word in rng.sample(words, CHOICES)],
                "answer": rng.randrange(CHOICES),
            }
            for number in range(ITEMS)
        ]
        write_task(folder, name, items)


def write_task(folder: Path, name: str, items: Iterable[Mapping[str, object]]) -> None:
    """One task file for lm-eval, its items beside it as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / f"{name}.jsonl", items)
    (folder / f"{name}.yaml").write_text(TASK.format(name=name))
    (folder / "tiny_data.py").write_text(LOADER)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


TASK = """\
task: {name}
custom_dataset: !function tiny_data.load
dataset_kwargs:
  file: {name}.jsonl
output_type: multiple_choice
test_split: test
doc_to_text: question
doc_to_target: answer
doc_to_choice: choices
target_delimiter: ""
metric_list:
  - metric: acc
metadata:
  version: 1
"""

LOADER = '''\
"""Reads the items that lie beside the task files."""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset


def load(file: str, **_: object) -> dict[str, Dataset]:
    lines = (Path(__file__).parent / file).read_text().splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
'''


def summary(plan: Plan) -> dict[str, Any]:
    """summary.json as a script would read it."""
    return json.loads(json.dumps(registry.summary(plan)))
