"""`train`: the crosscoders of a study, all from one stream of activations, and how well they fit held-out text."""

import json
import sys
from hashlib import sha256
from pathlib import Path

from safetensors.torch import save_file

from featdiff import torchrun
from featdiff.activations.buffer import StreamCounts
from featdiff.activations.cache import CachedResiduals, CacheOrigin, cached, model_fingerprint, tokenizer_fingerprint
from featdiff.activations.parallel import ModelParallel, ResidualSource, spread_names
from featdiff.activations.stream import ActivationStream, Calibration
from featdiff.config.crosscoder import BatchTopK, CrosscoderPlan
from featdiff.config.study import BASE, CorpusSettings
from featdiff.crosscoder import Crosscoder
from featdiff.crosscoder.distributed import joined
from featdiff.crosscoder.matmul import fast_products_are_exact, float32_products
from featdiff.crosscoder.provenance import note_origin
from featdiff.crosscoder.trainer import train as train_crosscoders
from featdiff.data.corpus import Corpus, build_corpus
from featdiff.files import load, save
from featdiff.models.loading import Lineup, load_tokenizer
from featdiff.run.held_out import save_held_out
from featdiff.run.memory import check_memory, return_freed_memory
from featdiff.run.models import load_lineup, load_whole
from featdiff.run.plan import Plan
from featdiff.run.results import FIT, STREAM, HeldOutFit, StreamRecord
from featdiff.run.splice import held_out_fits

L0_FACTOR = 1.5
"""Beyond this ratio of L0 and k, the threshold that BatchTopK uses once trained is not the one that it learned by."""


def train(plan: Plan, folder: Path) -> None:
    """Write `<crosscoder>/` for each (weights, config, metrics, quality), and `stream.json` about what was read.

    Under torchrun all processes train; the first of them writes and measures. ValueError, once all is written, for a
    crosscoder that fits too poorly to go on with, unless `training.accept_poor_fit`.
    """
    # One kind of product for all that runs here: else what a cache holds would differ in the last bit from what the
    # models say in the middle of training.
    with (
        joined(plan.study.lineup.device, plan.study.training.feature_shards) as ranks,
        float32_products(fast_products_are_exact()),
    ):
        plan = _on_own_device(plan)
        check_memory(plan)
        study, models = plan.study, plan.harvested
        spread = study.lineup.spread and ranks.count > 1
        lineup = load_lineup(plan, models, spread_names(models, ranks) if spread else None)
        corpus, held_out = _corpora(plan)
        stream = ActivationStream(
            ModelParallel(models, lineup, ranks) if spread else _streams(plan, lineup, corpus),
            corpus,
            study.activations,
            batch_size=study.training.batch_size,
            epochs=study.training.epochs,
            seed=study.seed,
            shares=ranks,
        )
        crosscoders = {name: _new(plan, one, lineup.d_model) for name, one in plan.crosscoders.items()}
        for crosscoder in crosscoders.values():
            note_origin(crosscoder, _data_order(plan, corpus, models))
        if not (folder / STREAM).is_file():
            train_crosscoders(
                crosscoders,
                stream,
                study.training,
                folder=folder,
                device=study.lineup.device,
                ranks=ranks,
            )
            if ranks.rank == 0:
                save(_record(stream, lineup, study.training.epochs), folder / STREAM)
            return_freed_memory()
    if ranks.rank == 0:
        if spread:  # one process measures: the models take turns on its device
            plan = _placed(plan, turns=True, spread=False)
            lineup = load_lineup(plan, models)
        _measure(plan, folder, lineup, held_out, stream.calibration)
        _judge(plan, folder)


def _on_own_device(plan: Plan) -> Plan:
    """The plan with the device of this process; under torchrun each has one GPU, that of its local rank."""
    lineup = plan.study.lineup
    if torchrun.processes() == 1:
        return plan
    if lineup.devices:
        raise ValueError("lineup.devices is given, but under torchrun each process has one device; leave it out")
    if lineup.spread and plan.study.activations.cache is not None:
        raise ValueError("with activations.cache models run one at a time anyway; leave lineup.spread out")
    return _placed(plan, device=f"cuda:{torchrun.local_rank()}" if lineup.device == "cuda" else lineup.device)


def _placed(plan: Plan, **placement: str | bool) -> Plan:
    """The plan with its models elsewhere."""
    lineup = plan.study.lineup.model_copy(update=placement)
    return Plan(plan.study.model_copy(update={"lineup": lineup}), plan.run.elsewhere)


def _streams(plan: Plan, lineup: Lineup, corpus: Corpus) -> ResidualSource:
    """The residual streams of the training corpus: from the models, or from a cache."""
    cache = plan.study.activations.cache
    return lineup if cache is None else _cached(plan, Path(cache), lineup, corpus)


def _cached(plan: Plan, folder: Path, lineup: Lineup, corpus: Corpus) -> CachedResiduals:
    """The residual streams of the training corpus, from a cache; models that it lacks run first, each by itself."""
    settings, tokenizer = plan.study.lineup, tokenizer_fingerprint(lineup.tokenizer)

    def origin(name: str) -> CacheOrigin:
        model = model_fingerprint(plan.paths[name])
        return CacheOrigin(model, tokenizer, lineup.layers, settings.dtype, settings.attention)

    def load(name: str) -> Lineup:
        return Lineup.load(
            {name: plan.paths[name]},
            layer=lineup.layers,
            dtype=settings.dtype,
            device=settings.devices.get(name, settings.device),
            attention=settings.attention,
            trust_remote_code=settings.trust_remote_code,
        )

    origins = {name: origin(name) for name in lineup.names}
    batch_size = plan.study.activations.batch_size
    return cached(folder.expanduser(), origins, corpus, load, batch_size=batch_size, device=settings.device)


def _corpora(plan: Plan) -> tuple[Corpus, Corpus]:
    study = plan.study
    sources = tuple(source.model_copy(update={"path": plan.located(source.path)}) for source in study.corpus.sources)
    settings: CorpusSettings = study.corpus.model_copy(update={"sources": sources})
    tokenizer = load_tokenizer(plan.paths[BASE], trust_remote_code=study.lineup.trust_remote_code)
    return build_corpus(settings, tokenizer, seed=study.seed)


def _data_order(plan: Plan, corpus: Corpus, models: tuple[str, ...]) -> str:
    """A digest of the text in its order, and of all else that decides which token a crosscoder sees when: a sink in any
    of the models is left out for all."""
    settings = plan.study.activations.model_dump(mode="json", exclude={"prefetch", "cache", "scale_tokens"})
    of_training = [plan.study.training.batch_size, plan.study.training.epochs]
    digest = sha256(json.dumps([plan.study.seed, settings, of_training, list(models)]).encode())
    for tensor in (corpus.input_ids, corpus.document_start):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _new(plan: Plan, one: CrosscoderPlan, d_model: int) -> Crosscoder:
    return Crosscoder(
        models=one.models,
        d_model=d_model,
        features=one.features,
        sparsity=one.sparsity,
        seed=one.seed,
        decoder_init_norm=plan.study.crosscoder.decoder_init_norm,
        design=one.design,
    )


def _record(stream: ActivationStream, lineup: Lineup, epochs: int) -> StreamRecord:
    """What was read, in one epoch; every epoch reads the same tokens."""
    calibration, counts = stream.calibration, stream.counts
    return StreamRecord(
        counts=StreamCounts(
            counts.seen // epochs, counts.first_dropped // epochs, counts.sinks_dropped // epochs, counts.kept // epochs
        ),
        epochs=epochs,
        layers=lineup.layers,
        d_model=lineup.d_model,
        scale=dict(zip(calibration.models, calibration.scale.tolist(), strict=True)),
        largest_norm=dict(zip(calibration.models, calibration.largest_norm.tolist(), strict=True)),
    )


def _measure(plan: Plan, folder: Path, lineup: Lineup, held_out: Corpus, calibration: Calibration) -> None:
    save_held_out(held_out, folder)
    found = held_out_fits(
        {name: Crosscoder.load(folder / name).to(plan.study.lineup.device) for name in plan.crosscoders},
        lineup,
        held_out,
        calibration,
        plan.study.activations,
        lambda name: load_whole(plan, plan.paths[name]),
        spliced=plan.lineups,
    )
    for name, (quality, fit) in found.items():
        save_file({"density": quality.density, "mean": quality.mean}, folder / name / "quality.safetensors")
        save(fit, folder / name / FIT)


def _judge(plan: Plan, folder: Path) -> None:
    """Refuse crosscoders that fit held-out text too poorly; all seeds of those that stand for themselves."""
    names = [seed for name in plan.lineups for seed in plan.seeds[name]]
    fits = {name: load(HeldOutFit, folder / name / FIT) for name in names}
    poor = [text for name, fit in fits.items() if (text := _poor_fit(name, plan.crosscoders[name], fit))]
    if not poor:
        return
    found = f"too poor a fit on held-out text: {'; '.join(poor)}; the measurements lie in {folder}"
    if not plan.study.training.accept_poor_fit:
        raise ValueError(
            f"{found}; train on more tokens or steps (corpus.tokens, training.epochs), or choose another k or "
            "training.lr; to go on regardless, without training again, set training.accept_poor_fit = true"
        )
    print(f"warning: {found}; going on, as training.accept_poor_fit is set", file=sys.stderr)


def _poor_fit(name: str, one: CrosscoderPlan, fit: HeldOutFit) -> str:
    """What is wrong with the fit of a crosscoder, with its numbers; empty where nothing is."""
    faults: list[str] = []
    worse = {model: share for model, share in fit.variance_explained.items() if share is not None and share < 0}
    if worse:
        listed = ", ".join(f"{model} {share:.2f}" for model, share in worse.items())
        faults.append(f"variance explained is below 0, that of no dictionary ({listed})")
    if isinstance(one.sparsity, BatchTopK):
        k, l0 = one.sparsity.k, fit.l0
        if max(l0, k) > L0_FACTOR * min(l0, k):
            faults.append(f"L0 is {l0:.0f} where k = {k}")
    return f"crosscoder {name}: {' and '.join(faults)}" if faults else ""
