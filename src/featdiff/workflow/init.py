"""`init`: a commented study for models that a user already has."""

import json
import tomllib
from pathlib import Path

from featdiff.config.study_file import is_hub_id, validated
from featdiff.files import write_text

TEMPLATE = """\
# A featdiff study. Run it with: featdiff run {file}
# Every setting and its default: featdiff run {file} --help

name = {name}
seed = 0

# ---- The models. The base comes first; all share one tokenizer and one width.
[lineup]
base = {base}
# layer = 18              # blocks below the tap; the middle of the model unless set
# dtype = "bfloat16"
# device = "cuda"

[lineup.tuned]
{tuned}

# Checkpoints of a tuned model, in order of training, give the dynamics (Sec. 5.2 of the paper):
# [lineup.checkpoints]
# {first} = ["checkpoint-1", "checkpoint-2", "checkpoint-3", "checkpoint-4", "checkpoint-5"]

# ---- Text from which features are learned; shares sum to 1.
# The paper takes 400M tokens, half reasoning traces and half general text. A first look needs a few million.
[corpus]
tokens = 4_000_000
held_out_tokens = 100_000
context = 512
sources = [
  # a hub data set (column by `field`), or a text, JSONL or parquet file or folder of yours
  {{ path = "open-thoughts/OpenThoughts-114k", subset = "metadata", field = "deepseek_reasoning", share = 0.5 }},
  {{ path = "HuggingFaceFW/fineweb", subset = "sample-10BT", share = 0.5 }},
]

# ---- The dictionary. BatchTopK does not shrink features, so it makes no false owners; the paper's own choice is
# sparsity = {{ kind = "relu", weight = 2.0 }}
# JumpReLU, other objectives, shared and dedicated features, an MLP encoder and alignment: docs/choices.md.
[crosscoder]
features = 16_384
sparsity = {{ kind = "batchtopk", k = 64 }}

[training]
batch_size = 1024
lr = 1e-4

# ---- Benchmarks, through lm-eval. Tasks with role "unseen" take no part in the choice of features.
[evaluation]
batch_size = 16
tasks = [
  {{ name = "openbookqa" }},
  {{ name = "commonsense_qa" }},
  {{ name = "headqa_en" }},
  {{ name = "sciq" }},
  {{ name = "arc_challenge" }},
  {{ name = "logiqa", role = "unseen" }},
  {{ name = "piqa", role = "unseen" }},
]

# ---- The causal test: features of which model, and how many random sets each effect is compared with.
[selection]
model = {selected}

[intervention]
controls = 100
"""


def init(base: str, tuned: dict[str, str], out: Path) -> Path:
    """Write a study for `base` and the `tuned` models (name -> path or hub id).

    No file is overwritten. ValueError for models that are not there, and for names that no study takes.
    """
    if out.exists():
        raise ValueError(f"{out} exists; give another name with --out FILE, or remove it")
    if "" in tuned or "" in tuned.values() or not base:
        raise ValueError("a model has an empty name or path; write --base PATH --tuned NAME=PATH")
    for path in (base, *tuned.values()):
        if not Path(path).exists() and not is_hub_id(path):
            raise ValueError(f"nothing at {path}; give a model folder in Hugging Face form, or a hub id owner/name")
    study = _study(base, tuned, out)
    validated(tomllib.loads(study), str(out))
    write_text(out, study)
    return out


def _study(base: str, tuned: dict[str, str], out: Path) -> str:
    return TEMPLATE.format(
        file=out,
        name=json.dumps(out.stem),
        base=json.dumps(_absolute(base)),
        tuned="\n".join(f"{json.dumps(name)} = {json.dumps(_absolute(path))}" for name, path in tuned.items()),
        first=json.dumps(next(iter(tuned))),
        selected=json.dumps("rl" if "rl" in tuned else list(tuned)[-1]),
    )


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path
