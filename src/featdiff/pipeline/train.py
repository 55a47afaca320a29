"""`train`: the crosscoders of a study, all from one stream of activations, and how well they fit held-out text."""

from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from featdiff.activations.corpus import Corpus, build_corpus
from featdiff.activations.models import Lineup, load_tokenizer
from featdiff.activations.stream import ActivationStream, Calibration, StreamState, collect
from featdiff.crosscoder import Crosscoder
from featdiff.crosscoder.quality import measure
from featdiff.crosscoder.sparsity import sparsity_from
from featdiff.crosscoder.training import train as train_crosscoders
from featdiff.pipeline.plan import CrosscoderPlan, Plan
from featdiff.pipeline.select import load_lineup
from featdiff.pipeline.splice import harvest, packed_parts, recovered
from featdiff.runs import Json, write_json
from featdiff.study import BASE, CorpusSettings

STREAM = "stream.json"


def train(plan: Plan, folder: Path) -> None:
    """Write `<crosscoder>/` for each (weights, config, metrics, quality), and `stream.json` about what was read."""
    study = plan.study
    lineup = load_lineup(plan, _models(plan))
    corpus, held_out = _corpora(plan)
    stream = ActivationStream(
        lineup,
        corpus,
        study.activations,
        batch_size=study.training.batch_size,
        epochs=study.training.epochs,
        seed=study.seed,
    )
    crosscoders = {name: _new(plan, one, lineup.d_model) for name, one in plan.crosscoders.items()}
    if not (folder / STREAM).is_file():
        train_crosscoders(
            crosscoders,
            stream,
            study.training,
            folder=folder,
            state_from=StreamState.from_tensors,
            device=study.lineup.device,
        )
        write_json(folder / STREAM, _record(stream, lineup, study.training.epochs))
    _measure(plan, folder, lineup, held_out, stream.calibration)


def _models(plan: Plan) -> tuple[str, ...]:
    """The models that some crosscoder reads, in the order of the study: one pass over the corpus serves all."""
    wanted = {model for one in plan.crosscoders.values() for model in one.models}
    return tuple(name for name in plan.paths if name in wanted)


def _corpora(plan: Plan) -> tuple[Corpus, Corpus]:
    study = plan.study
    sources = tuple(source.model_copy(update={"path": plan.located(source.path)}) for source in study.corpus.sources)
    settings: CorpusSettings = study.corpus.model_copy(update={"sources": sources})
    tokenizer = load_tokenizer(plan.paths[BASE], trust_remote_code=study.lineup.trust_remote_code)
    return build_corpus(settings, tokenizer, seed=study.seed)


def _new(plan: Plan, one: CrosscoderPlan, d_model: int) -> Crosscoder:
    return Crosscoder(
        models=one.models,
        d_model=d_model,
        features=one.features,
        sparsity=sparsity_from(one.sparsity.model_dump()),
        seed=one.seed,
        decoder_init_norm=plan.study.crosscoder.decoder_init_norm,
    )


def _record(stream: ActivationStream, lineup: Lineup, epochs: int) -> dict[str, Json]:
    """What was read, in one epoch; every epoch reads the same tokens."""
    calibration = stream.calibration
    return {
        "counts": {name: count // epochs for name, count in asdict(stream.counts).items()},
        "epochs": epochs,
        "layers": lineup.layers,
        "d_model": lineup.d_model,
        "scale": dict(zip(calibration.models, calibration.scale.tolist(), strict=True)),
        "largest_norm": dict(zip(calibration.models, calibration.largest_norm.tolist(), strict=True)),
    }


def _measure(plan: Plan, folder: Path, lineup: Lineup, held_out: Corpus, calibration: Calibration) -> None:
    crosscoders = {name: Crosscoder.load(folder / name).to(plan.study.lineup.device) for name in plan.crosscoders}
    found = {
        name: measure(crosscoder, collect(lineup, held_out, calibration, plan.study.activations))
        for name, crosscoder in crosscoders.items()
    }
    harvested = harvest(plan, lineup, calibration, packed_parts(plan, held_out))
    for name, quality in found.items():
        save_file({"density": quality.density, "mean": quality.mean}, folder / name / "quality.safetensors")
        write_json(
            folder / name / "quality.json",
            {
                "variance_explained": dict(zip(quality.models, quality.variance_explained.tolist(), strict=True)),
                "l0": quality.l0,
                "dead_share": quality.dead_share,
                "tokens": quality.tokens,
                **recovered(plan, lineup, crosscoders[name], quality.mean, harvested),
            },
        )
