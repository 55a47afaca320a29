"""The held-out text of a run, as it lies beside the crosscoders, and what models show on it."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from featdiff.activations.stream import Activations, Calibration, collect
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup
from featdiff.run.plan import Plan
from featdiff.run.results import stream_of

HELD_OUT = "held_out.safetensors"


def save_held_out(corpus: Corpus, folder: Path) -> None:
    """Keep the held-out text for the stages that measure on it."""
    tensors = {"input_ids": corpus.input_ids, "document_start": corpus.document_start}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / HELD_OUT)


def held_out_corpus(plan: Plan) -> Corpus:
    """The held-out text of the run, from `train`."""
    path = plan.run.path("crosscoders", HELD_OUT)
    try:
        return Corpus(**load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete {path.parent} and run again") from error


def calibration_of(plan: Plan, models: tuple[str, ...]) -> Calibration:
    """Sink threshold and scale of some models, as they were estimated when the crosscoders were trained."""
    stream = stream_of(plan)
    largest_norm, scale = ([of[name] for name in models] for of in (stream.largest_norm, stream.scale))
    return Calibration(models, torch.tensor(largest_norm), torch.tensor(scale))


def held_out_activations(plan: Plan, lineup: Lineup, limit: int) -> Iterator[Activations]:
    """The residual streams of a lineup on held-out tokens, at most `limit`, a forward pass at a time."""
    return collect(lineup, held_out_corpus(plan), calibration_of(plan, lineup.names), plan.study.activations, limit)
