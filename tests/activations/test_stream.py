"""Tests of the stream with a planted lineup, whose activations tell which token they are of."""

import threading
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModel, LlamaConfig, PreTrainedTokenizerBase

from featdiff.activations.stream import ActivationStream, StreamCounts, calibrate, collect
from featdiff.config.study import ActivationSettings
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup

PREFETCH = ["on", "off"]
D_MODEL = 4
NORMS = torch.tensor([3.0, 5.0])


@dataclass(frozen=True)
class Planted:
    """Two models; a token's activation has norm 3 and 5, or as planted, and its direction tells the token."""

    planted: dict[int, tuple[float, float]]
    names: tuple[str, ...] = ("base", "rl")
    d_model: int = D_MODEL

    def residuals(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        assert position_ids is not None
        angle = input_ids.float() / 1000
        direction = torch.stack((angle.sin(), angle.cos(), angle.mul(0), angle.mul(0)), dim=-1)
        norms = NORMS.expand(*input_ids.shape, 2).clone()
        for token, norm in self.planted.items():
            norms[input_ids == token] = torch.tensor(norm)
        return norms[..., None] * direction[..., None, :]


def corpus(rows: int = 23, context: int = 10) -> Corpus:
    """Token ids are unique; documents begin with every row and in its middle."""
    ids = torch.arange(rows * context, dtype=torch.int32).view(rows, context)
    start = torch.zeros(rows, context, dtype=torch.bool)
    start[:, [0, 4]] = True
    return Corpus(ids, start)


@pytest.fixture(autouse=True)
def bytes_for_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers are given in bytes here: a MiB holds more than these tests need."""
    monkeypatch.setattr("featdiff.activations.stream.MIB", 1)


def settings(rows_per_chunk: int, batch_size: int, **options: float | str) -> ActivationSettings:
    """Settings whose buffer holds so many rows of 10 tokens beside a batch."""
    memory = (rows_per_chunk * 10 + batch_size) * 4 * 2 * D_MODEL
    return ActivationSettings.model_validate({"batch_size": 2, "buffer_mib": memory, "scale_tokens": 60, **options})


def stream(
    rows_per_chunk: int = 4,
    batch_size: int = 7,
    epochs: int = 1,
    seed: int = 0,
    planted: dict[int, tuple[float, float]] | None = None,
    lineup: type[Planted] = Planted,
    **options: float | str,
) -> ActivationStream:
    chosen = settings(rows_per_chunk, batch_size, **options)
    return ActivationStream(lineup(planted or {}), corpus(), chosen, batch_size=batch_size, epochs=epochs, seed=seed)


def token_of(values: Tensor) -> Tensor:
    """The token ids that the directions of activations [tokens d_model] tell."""
    return (torch.atan2(values[:, 0], values[:, 1]) * 1000).round().long()


KEPT = {token for token in range(230) if token % 10 not in (0, 4)}


@pytest.mark.parametrize("rows_per_chunk", [1, 2, 4, 23, 1000])
@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_every_kept_token_is_served_exactly_once_an_epoch(rows_per_chunk: int, batch_size: int) -> None:
    served = stream(rows_per_chunk, batch_size, epochs=3)
    tokens = torch.cat([activations.tokens for activations, _ in served.batches()]).tolist()
    assert len(tokens) == 3 * len(KEPT)
    for epoch in range(3):
        assert set(tokens[epoch * len(KEPT) : (epoch + 1) * len(KEPT)]) == KEPT


def test_activations_stay_with_their_token_and_model() -> None:
    for activations, _ in stream().batches():
        assert activations.models == ("base", "rl")
        torch.testing.assert_close(activations.values.norm(dim=-1), NORMS.expand(len(activations.tokens), 2))
        for model in range(2):
            assert torch.equal(token_of(activations.values[:, model]), activations.tokens)


def test_batches_are_full_but_for_the_last_of_an_epoch_and_as_many_as_foreseen() -> None:
    served = stream(batch_size=7, epochs=2)
    sizes = [len(activations.tokens) for activations, _ in served.batches()]
    assert sizes == ([7] * 26 + [184 - 7 * 26]) * 2
    assert served.steps == len(sizes) == 54


def test_a_corpus_that_fits_the_buffer_is_read_by_the_models_once_for_all_epochs() -> None:
    reads: list[int] = []

    class Counting(Planted):
        def residuals(
            self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
        ) -> Tensor:
            reads.append(len(input_ids))
            return super().residuals(input_ids, attention_mask, position_ids)

    served = ActivationStream(Counting({}), corpus(), settings(24, 7), batch_size=7, epochs=3, seed=0)
    reads.clear()
    assert sum(len(activations.tokens) for activations, _ in served.batches()) == 3 * len(KEPT)
    assert sum(reads) == len(corpus().input_ids)


def test_the_order_is_random_and_depends_on_seed_and_epoch() -> None:
    orders = [
        torch.cat([activations.tokens for activations, _ in stream(epochs=2, seed=seed).batches()])
        for seed in (0, 0, 1)
    ]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0][:184], orders[0][184:])
    # a large buffer mixes the whole corpus: neighbours are far apart on average (230 / 3 for a uniform order)
    mixed = torch.cat([activations.tokens for activations, _ in stream(rows_per_chunk=23).batches()])
    assert mixed.diff().abs().float().mean() > 50


@pytest.mark.parametrize(
    ("rows_per_chunk", "batch_size", "prefetch"),
    [(4, 7, "off"), (4, 7, "on"), (1, 30, "off"), (1, 30, "on"), (23, 8, "off"), (2, 16, "off")],
)
def test_a_resumed_stream_goes_on_with_the_same_bits_from_every_batch(
    tmp_path: Path, rows_per_chunk: int, batch_size: int, prefetch: str
) -> None:
    planted = {13: (1000.0, 5.0)}
    undisturbed = stream(rows_per_chunk, batch_size, epochs=2, planted=planted)
    served = [(activations, state, undisturbed.counts) for activations, state in undisturbed.batches()]
    for index in range(0, len(served), 5 if batch_size == 7 else 1):
        save_file(served[index][1].tensors(), tmp_path / "state.safetensors")
        state = ActivationStream.state_from(load_file(tmp_path / "state.safetensors"))
        resumed = stream(rows_per_chunk, batch_size, epochs=2, planted=planted, prefetch=prefetch)
        rest = [(activations, after, resumed.counts) for activations, after in resumed.batches(state)]
        assert len(rest) == len(served) - index - 1
        for (ours, after, counts), (theirs, wanted, wanted_counts) in zip(rest, served[index + 1 :], strict=True):
            assert torch.equal(ours.values, theirs.values)
            assert torch.equal(ours.tokens, theirs.tokens)
            assert counts == wanted_counts
            states = after.tensors(), wanted.tensors()
            assert states[0].keys() == states[1].keys()
            assert all(torch.equal(states[0][part], states[1][part]) for part in states[0])


def test_a_state_holds_less_than_a_batch() -> None:
    states = [state for _, state in stream(rows_per_chunk=2, batch_size=15, epochs=2).batches()]
    assert all(len(state.tokens) < 16 for state in states)
    assert max(len(state.tokens) for state in states) > 0
    assert (states[-1].epoch, states[-1].chunk, len(states[-1].tokens)) == (2, 0, 0)
    assert list(stream(rows_per_chunk=2, batch_size=15, epochs=2).batches(states[-1])) == []


def test_sinks_of_any_model_are_dropped_and_counted() -> None:
    planted = {11: (30.1, 5.0), 12: (3.0, 50.1), 15: (29.9, 49.9), 10: (900.0, 900.0), 225: (3.0, 51.0)}
    served = stream(planted=planted, epochs=2)
    tokens = Counter(token for activations, _ in served.batches() for token in activations.tokens.tolist())
    assert tokens == Counter(dict.fromkeys(KEPT - {11, 12, 225}, 2))
    assert served.counts == StreamCounts(seen=460, first_dropped=2 * 46, sinks_dropped=2 * 3, kept=2 * 181)


def test_scale_is_the_mean_norm_of_kept_tokens_over_the_root_of_d_model() -> None:
    # scale_tokens 60: six rows, 48 tokens that begin no document; 11 is a sink, 15 has norm 9 in base
    planted = {10: (500.0, 500.0), 11: (5000.0, 5.0), 15: (9.0, 5.0)}
    served = stream(planted=planted)
    torch.testing.assert_close(served.scale, torch.tensor([(46 * 3 + 9) / 47, 5.0]) / 2)
    torch.testing.assert_close(served.calibration.largest_norm, 10 * NORMS)


def test_first_positions_are_kept_when_asked() -> None:
    served = stream(drop_first=False)
    tokens = {token for activations, _ in served.batches() for token in activations.tokens.tolist()}
    assert tokens == set(range(230))
    assert served.steps == 33
    assert served.counts.first_dropped == 0


@pytest.mark.parametrize(("rows_per_chunk", "batch_size"), [(4, 7), (1, 30), (23, 8), (2, 16), (3, 1)])
def test_prefetching_changes_no_bit(rows_per_chunk: int, batch_size: int) -> None:
    served = [stream(rows_per_chunk, batch_size, epochs=3, prefetch=prefetch) for prefetch in PREFETCH]
    pairs = zip(served[0].batches(), served[1].batches(), strict=True)
    for (ours, after), (theirs, wanted) in pairs:
        assert torch.equal(ours.values, theirs.values) and torch.equal(ours.tokens, theirs.tokens)
        assert all(torch.equal(after.tensors()[key], tensor) for key, tensor in wanted.tensors().items())
        assert served[0].counts == served[1].counts


def test_the_next_chunk_is_harvested_while_this_one_is_served_and_only_then_in_another_thread() -> None:
    threads: list[str] = []

    class Watched(Planted):
        def residuals(
            self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
        ) -> Tensor:
            threads.append(threading.current_thread().name)
            read.set()
            return super().residuals(input_ids, attention_mask, position_ids)

    read = threading.Event()
    for prefetch in ("on", "off", "auto"):
        served = stream(rows_per_chunk=4, lineup=Watched, prefetch=prefetch).batches()
        next(served)
        done = len(threads)
        read.clear()
        next(served)  # of the same chunk
        assert read.wait(5 if prefetch == "on" else 0) == (prefetch == "on")
        assert len(threads) - done == (prefetch == "on")
        assert (threading.current_thread().name in threads[-2:]) == (prefetch != "on")
        served.close()


@pytest.mark.parametrize("prefetch", PREFETCH)
def test_an_error_of_the_harvest_comes_after_the_batches_before_it(prefetch: str) -> None:
    wanted = stream(planted={}, epochs=2, rows_per_chunk=2)
    last = [activations.tokens for activations, _ in wanted.batches()]
    broken = stream(planted={227: (float("nan"), 5.0)}, epochs=2, rows_per_chunk=2, prefetch=prefetch)
    served: list[Tensor] = []
    with pytest.raises(ValueError, match=r"^the activations of model 'base' hold NaN or infinity; check its weights"):
        served.extend(activations.tokens for activations, _ in broken.batches())
    assert 0 < len(served) < len(last)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(served, last, strict=False))
    # all whole batches of the chunks before the one that holds the token
    assert not any((tokens == 227).any() for tokens in last[: len(served)])


def test_no_thread_stays_behind_a_stream_that_is_left() -> None:
    def harvesting() -> bool:
        return any(thread.name.startswith("harvest") for thread in threading.enumerate())

    served = stream(rows_per_chunk=2, prefetch="on").batches()
    next(served)
    assert harvesting()
    served.close()
    assert not harvesting()
    with pytest.raises(RuntimeError, match="the trainer fails"):
        for _ in stream(rows_per_chunk=2, prefetch="on").batches():
            raise RuntimeError("the trainer fails")
    list(stream(rows_per_chunk=2, prefetch="on").batches())
    assert not harvesting()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_name_their_model(bad: float) -> None:
    with pytest.raises(ValueError, match="activations of model 'rl' hold NaN or infinity; check its weights"):
        stream(planted={33: (3.0, bad)})
    late = stream(planted={227: (bad, 5.0)})
    with pytest.raises(ValueError, match="activations of model 'base' hold NaN"):
        list(late.batches())


def test_a_model_whose_activations_vanish_is_named() -> None:
    with pytest.raises(ValueError, match="activations of model 'rl' are zero"):
        stream(planted=dict.fromkeys(range(230), (3.0, 0.0)))


def test_a_corpus_of_starts_or_of_sinks_only_is_refused() -> None:
    only_starts = Corpus(torch.zeros(2, 8, dtype=torch.int32), torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="every token of the corpus begins a document"):
        calibrate(Planted({}), only_starts, ActivationSettings())
    with pytest.raises(ValueError, match="every token counts as a sink"):
        calibrate(Planted({}), corpus(), ActivationSettings(sink_multiple=0.5))


@pytest.mark.parametrize("limit", [None, 0, 1, 16, 17, 1000])
def test_collecting_keeps_the_same_tokens_in_order_up_to_a_limit(limit: int | None) -> None:
    lineup, chosen = Planted({11: (31.0, 5.0)}), settings(4, 7)
    parts = list(collect(lineup, corpus(), calibrate(lineup, corpus(), chosen), chosen, limit))
    tokens = [token for part in parts for token in part.tokens.tolist()]
    assert tokens == sorted(KEPT - {11})[:limit]
    assert all(len(part.tokens) <= 20 for part in parts)


def test_the_buffer_holds_the_memory_that_it_is_given() -> None:
    long = Corpus(torch.arange(40_000, dtype=torch.int32).view(-1, 40) % 500, torch.zeros(1000, 40, dtype=torch.bool))
    chosen = ActivationSettings(batch_size=8, buffer_mib=2**20, scale_tokens=100)
    served = ActivationStream(Planted({}), long, chosen, batch_size=128, epochs=1, seed=0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        next(iter(served.batches()))
    largest = max(event.cpu_memory_usage for event in profiled.events() or [])
    assert 0.9 * 2**20 < largest <= 2**20


def real_lineup() -> Lineup:
    shape = {"vocab_size": 230, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2}
    config = LlamaConfig.from_dict(shape | {"num_attention_heads": 2, "max_position_embeddings": 16})
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(AutoModel.from_config(config).eval().requires_grad_(False))
    return Lineup(("base", "rl"), tuple(models), PreTrainedTokenizerBase(), layers=1, d_model=8)


def test_a_real_lineup_streams_what_it_gives_for_the_rows() -> None:
    lineup = real_lineup()
    wanted = lineup.residuals(corpus().input_ids, position_ids=corpus().position_ids).flatten(0, 1)
    served = ActivationStream(lineup, corpus(), ActivationSettings(), batch_size=9, epochs=1, seed=0)
    for activations, _ in served.batches():
        torch.testing.assert_close(activations.values, wanted[activations.tokens])
        assert not activations.values.is_inference()


@pytest.mark.parametrize("rows_per_chunk", [2, 6, 100])
def test_models_that_take_turns_stream_the_same_bits_and_run_chunk_by_chunk(rows_per_chunk: int) -> None:
    lineup = real_lineup()
    memory = (rows_per_chunk * 10 + 9) * 4 * 2 * 8
    chosen = ActivationSettings(batch_size=2, buffer_mib=memory, scale_tokens=60, sink_multiple=1.4, prefetch="on")
    ran: list[int] = []
    for index, model in enumerate(lineup.models):
        model.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    streams = [
        ActivationStream(replace(lineup, turns=turns), corpus(), chosen, batch_size=9, epochs=2, seed=0)
        for turns in (False, True)
    ]
    ran.clear()
    for (ours, after), (theirs, wanted) in zip(*(one.batches() for one in streams), strict=True):
        assert torch.equal(ours.values, theirs.values) and torch.equal(ours.tokens, theirs.tokens)
        assert torch.equal(after.values, wanted.values)
    assert streams[0].counts == streams[1].counts
    assert streams[0].counts.sinks_dropped > 0
    assert torch.equal(streams[0].scale, streams[1].scale)
    for one in collect(replace(lineup, turns=True), corpus(), streams[0].calibration, chosen, 30):
        assert not one.values.is_inference()

    ran.clear()
    next(streams[1].batches())
    passes = {2: 1, 6: 3, 100: 12}[rows_per_chunk]
    assert ran == [0] * passes + [1] * passes


def test_models_that_take_turns_need_no_memory_beside_the_buffer() -> None:
    long = Corpus(torch.arange(8_000, dtype=torch.int32).view(-1, 16) % 230, torch.zeros(500, 16, dtype=torch.bool))
    chosen = ActivationSettings(batch_size=8, buffer_mib=2**18, scale_tokens=100)
    served = ActivationStream(replace(real_lineup(), turns=True), long, chosen, batch_size=128, epochs=1, seed=0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        next(iter(served.batches()))
    sizes = sorted(event.cpu_memory_usage for event in profiled.events() or [] if event.name == "aten::empty")
    assert 0.9 * 2**18 < sizes[-1] <= 2**18
    assert sizes[-2] < 2**18 / 4  # ids, norms and the values of a forward pass
