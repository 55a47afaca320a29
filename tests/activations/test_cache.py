"""The cache: what comes out of it is what the models gave, and whatever is wrong with it is refused by name."""

import fcntl
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from tiny_study import contents, random_model, save_model
from torch import Tensor

from featdiff.activations.cache import (
    CachedResiduals,
    CacheOrigin,
    cached,
    model_fingerprint,
    tokenizer_fingerprint,
)
from featdiff.activations.stream import ActivationStream
from featdiff.config.study import ActivationSettings
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup, load_tokenizer

D_MODEL, ROWS, CONTEXT = 4, 23, 10
ROW_BYTES = CONTEXT * D_MODEL * 4
ORIGIN = CacheOrigin(model="a", tokenizer="t", layer=1, dtype="float32", attention="auto")


@dataclass(frozen=True)
class Planted:
    """Models whose activations tell token, position and model; counts the rows that each has run."""

    names: tuple[str, ...]
    rows: dict[str, int] = field(default_factory=dict)
    dies_after: int = 1 << 30
    d_model: int = D_MODEL

    def residuals(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        assert position_ids is not None
        for name in self.names:
            self.rows[name] = self.rows.get(name, 0) + len(input_ids)
            if self.rows[name] > self.dies_after:
                raise KeyboardInterrupt
        angle = (input_ids * 10 + position_ids).float() / 1000
        direction = torch.stack((angle.sin(), angle.cos(), angle.tan(), angle), dim=-1)
        return torch.stack([direction * (1 + len(name)) for name in self.names], dim=2)


def corpus(rows: int = ROWS, first: int = 0) -> Corpus:
    """Token ids are unique; documents begin with every row and somewhere in it."""
    ids = first + torch.arange(rows * CONTEXT, dtype=torch.int32).view(rows, CONTEXT)
    start = torch.zeros(rows, CONTEXT, dtype=torch.bool)
    start[:, 0] = True
    start[torch.arange(rows), torch.arange(rows) % CONTEXT] = True
    return Corpus(ids, start)


def origins(*names: str) -> dict[str, CacheOrigin]:
    return {name: replace(ORIGIN, model=name) for name in names}


def planted(counts: dict[str, int] | None = None, dies_after: int = 1 << 30) -> Callable[[str], Planted]:
    counts = {} if counts is None else counts
    return lambda name: Planted((name,), counts, dies_after)


def absent(name: str) -> Planted:
    raise AssertionError(f"{name} is in the cache")


def opened(
    folder: Path, *names: str, load: Callable[[str], Planted] = absent, rows_per_shard: int = 4
) -> CachedResiduals:
    models = origins(*(names or ("base", "rl")))
    return cached(folder, models, corpus(), load, batch_size=4, shard_bytes=rows_per_shard * ROW_BYTES)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def values(residuals: CachedResiduals | Planted, rows: Tensor) -> Tensor:
    part = corpus().select(rows)
    return residuals.residuals(part.input_ids.long(), position_ids=part.position_ids)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of two models, six shards each. Not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    opened(folder, load=planted())
    assert len(shards(folder)) == 12
    return folder


@pytest.fixture
def whole(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(made, tmp_path / "cache"))


def stream(residuals: CachedResiduals | Planted, seed: int = 0) -> ActivationStream:
    """A stream whose buffer holds a part of the corpus."""
    settings = ActivationSettings(batch_size=2, buffer_mib=1, scale_tokens=60)
    return ActivationStream(residuals, corpus(), settings, batch_size=7, epochs=2, seed=seed)


@pytest.mark.parametrize("names", [("base", "rl"), ("rl", "base"), ("rl",)])
def test_a_stream_over_the_cache_gives_the_batches_of_a_stream_over_the_models(
    made: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featdiff.activations.stream.MIB", 4 * 2 * D_MODEL * 60)  # five chunks or so
    models, cache = stream(Planted(names)), stream(opened(made, *names))
    assert torch.equal(models.scale, cache.scale) and models.steps == cache.steps and models.models == cache.models
    served = 0
    for (wanted, after), (found, state) in zip(models.batches(), cache.batches(), strict=True):
        assert torch.equal(wanted.values, found.values) and torch.equal(wanted.tokens, found.tokens)
        assert all(torch.equal(after.tensors()[key], tensor) for key, tensor in state.tensors().items())
        served += 1
    assert served > 40 and models.counts == cache.counts


def test_a_stream_over_the_cache_goes_on_from_the_state_of_a_stream_over_the_models(made: Path) -> None:
    batches = list(stream(Planted(("base", "rl"))).batches())
    state = ActivationStream.state_from(batches[8][1].tensors())
    rest = [found.values for found, _ in stream(opened(made)).batches(state)]
    assert len(rest) == len(batches) - 9
    assert all(torch.equal(found, wanted.values) for found, (wanted, _) in zip(rest, batches[9:], strict=True))


@given(rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=30))
def test_rows_come_in_the_order_in_which_they_are_asked_for(made: Path, rows: list[int]) -> None:
    index = torch.tensor(rows)
    assert torch.equal(values(opened(made), index), values(Planted(("base", "rl")), index))


def test_every_model_runs_once_over_the_corpus_and_then_never(tmp_path: Path) -> None:
    counts: dict[str, int] = {}
    opened(tmp_path, "base", "rl", load=planted(counts))
    assert counts == {"base": ROWS + 4, "rl": ROWS + 4}  # a forward pass more tells the form
    opened(tmp_path, "rl", "base")
    opened(tmp_path, "rl", "sft", load=planted(counts))
    assert counts == {"base": ROWS + 4, "rl": ROWS + 4, "sft": ROWS + 4}


def test_models_of_one_origin_share_their_shards(tmp_path: Path) -> None:
    one = {"sft": ORIGIN, "sft-5": ORIGIN}
    residuals = cached(tmp_path, one, corpus(), planted(), batch_size=4, shard_bytes=4 * ROW_BYTES)
    assert len(shards(tmp_path)) == 6 and residuals.names == ("sft", "sft-5")
    found = values(residuals, torch.arange(3))
    assert torch.equal(found[:, :, 0], found[:, :, 1])


@pytest.mark.parametrize(("room", "rows"), [(0, 1), (3, 2), (4, 4), (15, 8), (1000, 23)])
def test_the_rows_of_a_shard_fit_its_room_and_are_a_power_of_two(tmp_path: Path, room: int, rows: int) -> None:
    opened(tmp_path, "base", load=planted(), rows_per_shard=room)
    with safe_open(shards(tmp_path)[0], framework="pt") as file:
        assert file.get_slice("values").get_shape() == [rows, CONTEXT, D_MODEL]


def test_a_killed_harvest_goes_on_with_other_forward_passes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, load=planted(dies_after=14))
    cached(tmp_path, origins("base", "rl"), corpus(), planted(), batch_size=3, shard_bytes=4 * ROW_BYTES)
    assert torch.equal(
        values(opened(tmp_path), torch.arange(ROWS)), values(Planted(("base", "rl")), torch.arange(ROWS))
    )


@pytest.mark.parametrize("change", ["model", "tokenizer", "layer", "dtype", "attention"])
def test_another_origin_is_harvested_anew(tmp_path: Path, change: str) -> None:
    other = replace(ORIGIN, **{change: 2 if change == "layer" else "bfloat16"})
    for origin in (ORIGIN, other):
        cached(tmp_path, {"base": origin}, corpus(), planted(), batch_size=2)
    assert len(list(tmp_path.glob("*/index.json"))) == 2


def test_other_rows_and_other_documents_are_harvested_anew(tmp_path: Path) -> None:
    split = corpus()
    split.document_start[3, 7] = True
    for one in (corpus(), corpus(ROWS - 1), corpus(first=1), split):
        cached(tmp_path, {"base": ORIGIN}, one, planted(), batch_size=2)
    assert len(list(tmp_path.glob("*/index.json"))) == 4


# ------------------------------------------------------------------ a harvest that was killed, or waits


@pytest.mark.parametrize("dies_after", [0, 4, 7, 12, 24])
def test_a_killed_harvest_goes_on_with_the_next_shard(made: Path, tmp_path: Path, dies_after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, load=planted(dies_after=dies_after))
    finished = len(shards(tmp_path))
    assert finished == max(0, dies_after - 4) // 4
    for place in tmp_path.glob("*/"):
        (place / "shard.part").write_bytes(b"half a shard")
    counts: dict[str, int] = {}
    opened(tmp_path, load=planted(counts))
    assert counts == {"base": 4 + ROWS - 4 * finished, "rl": 4 + ROWS}
    assert contents(tmp_path) == contents(made)


def test_a_harvest_waits_for_another_and_takes_what_it_made(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=opened, args=(cache,))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        shutil.copytree(made, cache, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock"))
    waiting.join(10)
    assert not waiting.is_alive() and "waiting for another featdiff" in capsys.readouterr().err
    opened(cache)


# ------------------------------------------------------------------ what is refused


def refusal(folder: Path) -> str:
    """What is said, in one line, about a cache that is not as it should be."""
    with pytest.raises(ValueError) as error:
        opened(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), number=st.integers(0, 11))
def test_a_shard_with_any_bit_flipped_is_refused_by_name(made: Path, place: float, bit: int, number: int) -> None:
    path = shards(made)[number]
    data = path.read_bytes()
    spoilt = bytearray(data)
    spoilt[int(place * len(data))] ^= 1 << bit
    try:
        path.write_bytes(spoilt)
        said = refusal(made)
    finally:
        path.write_bytes(data)
    assert str(path) in said and "delete it and index.json" in said


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_shard_cut_short_anywhere_is_refused_by_name(made: Path, share: float) -> None:
    path = shards(made)[3]
    data = path.read_bytes()
    try:
        path.write_bytes(data[: int(share * len(data))])
        said = refusal(made)
    finally:
        path.write_bytes(data)
    assert f"{path} is damaged" in said and "delete it and index.json" in said


def test_a_missing_shard_is_refused_by_name_and_harvested_when_the_index_is_deleted(whole: Path, made: Path) -> None:
    path = shards(whole)[8]
    path.unlink()
    assert f"{path} is missing; to have it harvested again, delete it and index.json beside it" == refusal(whole)
    (path.parent / "index.json").unlink()
    counts: dict[str, int] = {}
    opened(whole, load=planted(counts))
    assert list(counts.values()) == [4 + 4]
    assert path.read_bytes() == (made / path.relative_to(whole)).read_bytes()


def test_a_shard_of_another_cache_is_refused_by_name(whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    cached(other, origins("base"), corpus(first=1000), planted(), batch_size=4, shard_bytes=4 * ROW_BYTES)
    path = shards(whole)[2]
    shutil.copyfile(shards(other)[2], path)
    assert f"{path} belongs to another cache" in refusal(whole)


def test_a_shard_of_another_model_or_in_the_place_of_another_is_refused_by_name(whole: Path) -> None:
    paths = shards(whole)
    for wrong in (paths[6], paths[1]):
        own = paths[0].read_bytes()
        shutil.copyfile(wrong, paths[0])
        assert f"{paths[0]} belongs to another cache, or to another place in this one" in refusal(whole)
        paths[0].write_bytes(own)
    opened(whole)


def test_a_shard_of_a_like_cache_that_was_made_of_other_bytes_is_refused(whole: Path, tmp_path: Path) -> None:
    """The same origin and the same rows, by a model that gives something else."""
    other = tmp_path / "other"
    opened(other, load=lambda name: Planted((name + "!",)))
    path = shards(whole)[0]
    shutil.copyfile(other / path.relative_to(whole), path)
    assert f"{path} is not the shard that index.json names" in refusal(whole)


def test_a_changed_or_foreign_index_is_refused_by_name(whole: Path) -> None:
    first, second = sorted(whole.glob("*/index.json"))
    text = first.read_text()
    first.write_text(text.replace('"d_model": 4', '"d_model": 5'))
    assert f"{first} is damaged" in refusal(whole)
    first.write_text(text[:40])
    assert f"{first} is damaged" in refusal(whole)
    shutil.copyfile(second, first)
    assert f"{first} belongs to another cache" in refusal(whole)


def test_a_damaged_shard_of_a_harvest_that_was_killed_is_refused(whole: Path) -> None:
    path = shards(whole)[1]
    (path.parent / "index.json").unlink()
    path.write_bytes(path.read_bytes()[:-1] + b"\x77")
    with pytest.raises(ValueError, match="its bytes do not give its checksum"):
        opened(whole, load=planted())
    assert not (path.parent / "index.json").exists()


def test_a_disk_that_is_too_full_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, cache = 2 * ROWS * ROW_BYTES, tmp_path / "cache"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=wanted - 1))
    with pytest.raises(ValueError, match=r"take 7\.36e-06 GB, and 7\.36e-06 GB are free there; make room") as error:
        opened(cache, load=planted())
    assert str(cache) in str(error.value) and [path.name for path in cache.iterdir()] == [".lock"]
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=wanted))
    opened(cache, load=planted())
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=0))
    opened(cache)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        opened(tmp_path / "cache")


def test_activations_that_are_not_finite_are_refused_with_the_model_and_leave_no_index(tmp_path: Path) -> None:
    class Broken(Planted):
        def residuals(
            self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
        ) -> Tensor:
            found = super().residuals(input_ids, attention_mask, position_ids)
            return found.masked_fill((input_ids == 155)[:, :, None, None], torch.inf)

    with pytest.raises(ValueError, match="model 'rl' hold NaN or infinity"):
        opened(tmp_path, load=lambda name: (Broken if name == "rl" else Planted)((name,)))
    assert len(list(tmp_path.glob("*/index.json"))) == 1 and len(shards(tmp_path)) == 6 + 3


# ------------------------------------------------------------------ precision, fingerprints


def test_a_model_in_bfloat16_is_kept_in_bfloat16_without_loss(tmp_path: Path) -> None:
    save_model(random_model(seed=0), tmp_path / "model")
    lineup = Lineup.load({"base": str(tmp_path / "model")}, layer=2, dtype="bfloat16")
    ids = Corpus(torch.randint(3, 512, (6, 16), dtype=torch.int32), torch.zeros(6, 16, dtype=torch.bool))
    ids.document_start[:, 0] = True
    origin = {"base": replace(ORIGIN, dtype="bfloat16")}
    residuals = cached(tmp_path / "cache", origin, ids, lambda name: lineup, batch_size=4)
    wanted = lineup.residuals(ids.input_ids.long(), position_ids=ids.position_ids)
    assert torch.equal(residuals.residuals(ids.input_ids.long(), position_ids=ids.position_ids), wanted)
    with safe_open(shards(tmp_path / "cache")[0], framework="pt") as file:
        assert file.get_slice("values").get_dtype() == "BF16" and wanted.dtype == torch.float32


def test_what_half_precision_would_round_is_kept_in_float32(tmp_path: Path) -> None:
    origin = {"base": replace(ORIGIN, dtype="bfloat16")}
    residuals = cached(tmp_path, origin, corpus(), planted(), batch_size=2)
    assert torch.equal(values(residuals, torch.arange(ROWS)), values(Planted(("base",)), torch.arange(ROWS)))


def test_a_model_is_told_by_its_files_and_a_hub_model_by_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    before = model_fingerprint(str(tmp_path / "model"))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    assert model_fingerprint(str(tmp_path / "model")) != before
    place = tmp_path / "hub" / "models--owner--name"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc123")
    (place / "snapshots" / "abc123").mkdir(parents=True)
    (place / "snapshots" / "abc123" / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert model_fingerprint("owner/name") == "owner/name@abc123"


def test_a_tokenizer_is_told_by_its_vocabulary(tmp_path: Path) -> None:
    save_model(random_model(seed=0), tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    before = tokenizer_fingerprint(tokenizer)
    assert tokenizer_fingerprint(load_tokenizer(str(tmp_path))) == before
    tokenizer.add_tokens(["<new>"])
    assert tokenizer_fingerprint(tokenizer) != before


def test_the_index_says_what_the_cache_was_made_from(made: Path) -> None:
    index = json.loads(sorted(made.glob("*/index.json"))[0].read_text())
    assert index["made_from"].keys() == {"model", "tokenizer", "layer", "dtype", "attention", "rows", "method"}
    assert index["form"] == {"rows": 23, "context": 10, "d_model": 4, "dtype": "float32", "rows_per_shard": 4}
    assert len(index["sha256"]) == 6 and "torch" in index["made_by"]["versions"]
