"""`init`: a commented study for models that a user already has."""

import json
import math
import sys
import tomllib
from pathlib import Path

from featdiff.config.study_file import is_hub_id, validated
from featdiff.files import write_text
from featdiff.models.loading import ModelFacts, facts_of
from featdiff.models.shapes import shape_of
from featdiff.workflow.estimate_table import scaled

TEMPLATE = """\
# A featdiff study. Run it with: featdiff run {file}
# Every setting and its default: featdiff run {file} --help

name = {name}
seed = 0

# ---- The models. The base comes first; all share one tokenizer and one width.
[lineup]
base = {base}
{layer}
{dtype}
device = {device}

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
# {features_because}
# dead_after_tokens: a feature silent for so many tokens is dead and revived; it must lie well below corpus.tokens.
[crosscoder]
features = {features:_}
sparsity = {{ kind = "batchtopk", k = {k}, dead_after_tokens = 400_000 }}

[training]
batch_size = 1024
lr = 1e-4

# ---- Benchmarks, through lm-eval. Those with role "far" (from what the models were tuned on; "near" and "train" are
# the others) choose the features; those with role "unseen" take no part in the choice. Say what is true of your models.
[evaluation]
batch_size = 16
tasks = [
  {{ name = "openbookqa", role = "far" }},
  {{ name = "commonsense_qa", role = "far" }},
  {{ name = "headqa_en", role = "far" }},
  {{ name = "sciq", role = "far" }},
  {{ name = "arc_challenge", role = "far" }},
  {{ name = "logiqa", role = "unseen" }},
  {{ name = "piqa", role = "unseen" }},
]

# ---- The causal test: features of which model, and how many random sets each effect is compared with.
[selection]
model = {selected}

[intervention]
controls = 100
"""

MOST_FEATURES = 16_384
PER_WIDTH = 8
"""Features for each dimension of the residual stream."""
LARGE = 100e6
"""Parameters from which a study on the CPU takes days."""


def init(base: str, tuned: dict[str, str], out: Path) -> Path:
    """Write a study for `base` and the `tuned` models (name -> path or hub id).

    Layer, precision, device and number of features are those for this base on this machine. No file is overwritten.
    ValueError for models that are not there, and for names that no study takes.
    """
    if out.exists():
        raise ValueError(f"{out} exists; give another name with --out FILE, or remove it")
    if "" in tuned or "" in tuned.values() or not base:
        raise ValueError("a model has an empty name or path; write --base PATH --tuned NAME=PATH")
    for path in (base, *tuned.values()):
        if not Path(path).exists() and not is_hub_id(path):
            raise ValueError(f"nothing at {path}; give a model folder in Hugging Face form, or a hub id owner/name")
    on_gpu = _gpu_is_seen()
    study = _study(base, tuned, out, on_gpu)
    validated(tomllib.loads(study), str(out))
    write_text(out, study)
    parameters = _parameters(base)
    if not on_gpu and parameters > LARGE:
        print(
            f"torch sees no GPU here, so this study will run on the CPU in float32, with models of "
            f"{scaled(parameters)} parameters; see how long that takes: featdiff plan {out}",
            file=sys.stderr,
        )
    return out


def _study(base: str, tuned: dict[str, str], out: Path, on_gpu: bool) -> str:
    facts = _facts(base)
    features = MOST_FEATURES if facts is None else min(MOST_FEATURES, 2 ** round(math.log2(PER_WIDTH * facts.d_model)))
    return TEMPLATE.format(
        file=out,
        name=json.dumps(out.stem),
        base=json.dumps(_absolute(base)),
        layer=_layer(facts),
        dtype=_dtype(facts, on_gpu),
        device=json.dumps("cuda" if on_gpu else "cpu"),
        features_because=_features_because(facts),
        features=features,
        k=min(64, max(1, features // 32)),
        tuned="\n".join(f"{json.dumps(name)} = {json.dumps(_absolute(path))}" for name, path in tuned.items()),
        first=json.dumps(next(iter(tuned))),
        selected=json.dumps("rl" if "rl" in tuned else list(tuned)[-1]),
    )


def _layer(facts: ModelFacts | None) -> str:
    if facts is None:
        return (
            "# The base's config.json was not read (a hub id, or not readable): see to dtype and features yourself.\n"
            "# layer = N              # blocks below the tap; the middle of the model unless set"
        )
    middle = max(1, facts.blocks // 2)
    return f"# layer = {middle}  # blocks below the tap, of {facts.blocks}; the middle unless set"


def _dtype(facts: ModelFacts | None, on_gpu: bool) -> str:
    if not on_gpu:
        return 'dtype = "float32"  # as torch sees no GPU here'
    if facts is None or facts.dtype is None:
        return '# dtype = "bfloat16"  # that in which the base was saved, if it is a half precision; float32 unless set'
    return f'dtype = "{facts.dtype}"  # that in which the base was saved'


def _features_because(facts: ModelFacts | None) -> str:
    if facts is None:
        return f"features: about {PER_WIDTH} times the width of the models; at most {MOST_FEATURES:_} for a first look."
    return (
        f"features: {PER_WIDTH} times the width of {facts.d_model}, as a power of two, and at most {MOST_FEATURES:_}:\n"
        "# more features need more tokens than a first look takes."
    )


def _facts(base: str) -> ModelFacts | None:
    """What the base's config.json says; None for a hub id, and for a folder that cannot be read."""
    if not Path(base).is_dir():
        return None
    try:
        return facts_of(base)
    except ValueError:
        return None


def _parameters(base: str) -> int:
    """Parameters of the base, as far as they are known without a network; else 0."""
    try:
        return shape_of(base).parameters
    except ValueError:
        return 0


def _gpu_is_seen() -> bool:
    import torch

    return torch.cuda.is_available()


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path
