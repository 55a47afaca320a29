"""Cache of residual streams on disk: a corpus is harvested once, for every later study and sweep point.

1. The streams of one model lie in <cache>/<fingerprint>/: shards of consecutive rows of the corpus, all tokens of them,
   and index.json, written last, which says what they were made from and holds their checksums.
2. A study takes the folders of its models, whichever studies made them. Models that are missing are harvested, one
   after the other; a killed harvest goes on with the next missing shard.
3. Whoever opens a cache reads all of it once and compares the checksums. From then on rows are read when they are asked
   for, so that a stream over a cache gives the batches of a stream over the models, and needs no more memory.

Sinks and scales depend on the lineup and on settings. They are found anew each time, and a cache leaves no token out.
"""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b, sha256
from itertools import groupby
from math import ceil
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from featdiff.activations.stream import ResidualSource, not_finite
from featdiff.config.methods import HARVEST
from featdiff.data.corpus import Corpus
from featdiff.environment import surroundings
from featdiff.files import Json, as_json, content_fingerprint, read_json, write_json
from featdiff.models.loading import DTYPES, Tokenizer
from featdiff.models.tokenizer import special_tokens
from featdiff.progress import Progress

INDEX = "index.json"
SHARD_BYTES = 64 << 20
ROWS_AT_A_TIME = 1024  # whose keys are made together
AGAIN = "to have it harvested again, delete it and index.json beside it"
ALL_AGAIN = "to have all of it harvested again, delete its folder"


@dataclass(frozen=True)
class CacheOrigin:
    """Everything that the residual streams of one model depend on, apart from the rows of the corpus."""

    model: str
    """`model_fingerprint`."""
    tokenizer: str
    """`tokenizer_fingerprint`."""
    layer: int
    """Blocks below the hook point."""
    dtype: str
    """Precision of the model."""
    attention: str
    """How the model attends."""


def model_fingerprint(path: str) -> str:
    """Fingerprint of the files of a model folder; of a hub id, that id with the revision that is on this machine."""
    folder = Path(path).expanduser()
    if folder.exists():
        return content_fingerprint(folder)
    config = try_to_load_from_cache(path, "config.json")
    return f"{path}@{Path(config).parent.name}" if isinstance(config, str) else path


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Fingerprint of the vocabulary and the special tokens."""
    special = {str(index): text for index, text in special_tokens(tokenizer).items()}
    return _fingerprint({"vocabulary": tokenizer.get_vocab(), "special": special})


class CachedResiduals:
    """The residual streams of a lineup on the rows of one corpus, read from a cache: a stream takes it for the lineup.

    `shards` are those of each model, by name; `keys` tell the rows of the corpus apart; `device` is where the models
    would have put their streams.
    """

    def __init__(self, shards: "dict[str, _Shards]", keys: list[bytes], device: str) -> None:
        self.names, self._shards = tuple(shards), tuple(shards.values())
        self.d_model = self._shards[0].d_model
        self._row_of = {key: row for row, key in enumerate(keys)}
        self._device = device

    def residuals(
        self,
        input_ids: Int[Tensor, "batch positions"],
        attention_mask: Int[Tensor, "batch positions"] | None = None,
        position_ids: Int[Tensor, "batch positions"] | None = None,
    ) -> Float[Tensor, "batch positions models d_model"]:
        """The residual streams of all models on rows of the corpus, float32."""
        assert attention_mask is None and position_ids is not None, "the rows of a corpus are packed"
        rows = [self._row_of[key] for key in _keys(input_ids, position_ids)]
        read = {shards: shards.read(rows) for shards in dict.fromkeys(self._shards)}
        return torch.stack([read[shards] for shards in self._shards], dim=2).to(self._device)


def cached(
    folder: Path,
    origins: dict[str, CacheOrigin],
    corpus: Corpus,
    load: Callable[[str], ResidualSource],
    *,
    batch_size: int,
    device: str = "cpu",
    shard_bytes: int = SHARD_BYTES,
) -> CachedResiduals:
    """Open the residual streams of models on a corpus, by name, in the cache in `folder`.

    A model that the cache lacks is loaded by `load`, alone, and run on `batch_size` rows at a time; a shard takes at
    most `shard_bytes`, but for a single row. Raises ValueError when the disk has no room for what is missing, before
    anything of it is written; for activations that are not finite; and for a shard that is damaged, missing, or of
    another cache.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"activations.cache is {folder}, which is a file; give a folder")
    keys = _row_keys(corpus)
    rest = {"rows": sha256(b"".join(keys)).hexdigest()[:16], "method": HARVEST}
    made_from: dict[str, Json] = {name: asdict(origin) | rest for name, origin in origins.items()}
    places = {name: folder / _fingerprint(one) for name, one in made_from.items()}
    if _missing(places):
        with _alone(folder):
            missing = _missing(places)
            for count, name in enumerate(missing):
                harvest = _Harvest(load(name), corpus, batch_size)
                shards = harvest.shards(places[name], origins[name].dtype, shard_bytes)
                _demand_space([replace(shards, folder=places[one]) for one in missing[count:]])
                _fill(shards, harvest, made_from[name])
    opened = {place: _opened(place) for place in dict.fromkeys(places.values())}
    return CachedResiduals({name: opened[place] for name, place in places.items()}, keys, device)


# ------------------------------------------------------------------ the shards of one model


@dataclass(frozen=True)
class _Shards:
    """The streams of one model in a folder."""

    folder: Path
    rows: int
    context: int
    d_model: int
    dtype: str
    rows_per_shard: int

    @property
    def count(self) -> int:
        return ceil(self.rows / self.rows_per_shard)

    @property
    def lacking(self) -> list[int]:
        """The shards that are not there."""
        return [number for number in range(self.count) if not self.path(number).is_file()]

    def path(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"

    def span(self, number: int) -> range:
        """The rows of the corpus that a shard holds."""
        return range(self.rows)[number * self.rows_per_shard :][: self.rows_per_shard]

    def size(self, number: int) -> int:
        """Bytes of a shard."""
        return len(self.span(number)) * self.context * self.d_model * DTYPES[self.dtype].itemsize

    def write(self, number: int, values: Float[Tensor, "rows context d_model"]) -> str:
        """Write a shard, complete or not at all; its checksum."""
        part, checksum = self.folder / "shard.part", _sha256(values)
        # One entry, since safetensors writes several in any order.
        save_file({"values": values}, part, {"shard": f"{self._label(number)} {checksum}"})
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(self.path(number))
        return checksum

    def checksum(self, number: int) -> str:
        """The checksum of a shard. Raises ValueError when it is missing, damaged, or no part of this cache."""
        path = self.path(number)
        if not path.is_file():
            raise ValueError(f"{path} is missing; {AGAIN}")
        try:
            with safe_open(path, framework="pt") as file:
                label, _, wanted = (file.metadata() or {}).get("shard", "").rpartition(" ")
                values = file.get_tensor("values")
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}); {AGAIN}") from None
        if label != self._label(number):
            raise ValueError(f"{path} belongs to another cache, or to another place in this one; {AGAIN}")
        if _sha256(values) != wanted:
            raise ValueError(f"{path} is damaged (its bytes do not give its checksum); {AGAIN}")
        return wanted

    def read(self, rows: list[int]) -> Float[Tensor, "rows context d_model"]:
        """The streams of some rows, float32."""
        result = torch.empty(len(rows), self.context, self.d_model)
        by_row = sorted(range(len(rows)), key=lambda place: rows[place])
        for number, places in groupby(by_row, key=lambda place: rows[place] // self.rows_per_shard):
            # Opened anew each time, so that no more of a file stays mapped into memory than is being read.
            with safe_open(self.path(number), framework="pt") as file:
                values, first = file.get_slice("values"), self.span(number).start
                for place in places:
                    result[place] = values[rows[place] - first]
        return result

    def _label(self, number: int) -> str:
        return f"{self.folder.name} {self.span(number).start}:{self.span(number).stop}"


def _opened(folder: Path) -> _Shards:
    """The shards in a folder that has an index, every one of them checked."""
    path = folder / INDEX
    index = read_json(path)
    if index.pop("seal", None) != _fingerprint(index):
        raise ValueError(f"{path} is damaged; {ALL_AGAIN}")
    if _fingerprint(index["made_from"]) != folder.name:
        raise ValueError(f"{path} belongs to another cache; {ALL_AGAIN}")
    shards = _Shards(folder, **index["form"])
    with Progress("checking the cache", shards.count, "shard") as progress:
        for number, wanted in enumerate(index["sha256"]):
            if shards.checksum(number) != wanted:
                raise ValueError(f"{shards.path(number)} is not the shard that index.json names; {AGAIN}")
            progress.advance()
    return shards


# ------------------------------------------------------------------ harvest


@dataclass(frozen=True)
class _Harvest:
    """One model over the rows of a corpus."""

    lineup: ResidualSource
    corpus: Corpus
    batch_size: int

    def shards(self, folder: Path, dtype: str, shard_bytes: int) -> _Shards:
        """Shards of at most so many bytes, in `dtype` if it holds the residual streams exactly, as it does those of a
        model that computes in it, else in float32. Their rows are a power of two, as those of a forward pass often are.
        """
        rows, context = self.corpus.input_ids.shape
        first = self.values(range(min(rows, self.batch_size)), "float32")
        stored = dtype if torch.equal(first.to(DTYPES[dtype]).float(), first) else "float32"
        fitting = shard_bytes // (context * self.lineup.d_model * DTYPES[stored].itemsize)
        return _Shards(folder, rows, context, self.lineup.d_model, stored, 1 << max(0, fitting.bit_length() - 1))

    def values(self, rows: range, dtype: str) -> Float[Tensor, "rows context d_model"]:
        """The residual streams of some rows, in a precision that holds them exactly."""
        result = torch.empty(len(rows), self.corpus.input_ids.shape[1], self.lineup.d_model, dtype=DTYPES[dtype])
        for places in torch.arange(len(rows)).split(self.batch_size):
            part = self.corpus.select(places + rows.start)
            values = self.lineup.residuals(part.input_ids.long(), position_ids=part.position_ids)[:, :, 0].cpu()
            if not values.isfinite().all():
                raise not_finite(self.lineup.names[0])
            result[places] = values.to(result.dtype)
            assert torch.equal(result[places].float(), values), "a model that changes its precision between rows"
        return result


def _fill(shards: _Shards, harvest: _Harvest, made_from: Json) -> None:
    """Write the shards that a folder lacks, then its index."""
    shards.folder.mkdir(exist_ok=True)
    checksums: list[str] = []
    with Progress(f"harvesting {harvest.lineup.names[0]}", shards.count, "shard") as progress:
        for number in range(shards.count):
            if shards.path(number).is_file():
                checksums.append(shards.checksum(number))
            else:
                checksums.append(shards.write(number, harvest.values(shards.span(number), shards.dtype)))
            progress.advance()
    form = {name: value for name, value in vars(shards).items() if name != "folder"}
    made_by = as_json(surroundings())
    index: dict[str, Json] = {"made_from": made_from, "form": form, "sha256": checksums, "made_by": made_by}
    write_json(shards.folder / INDEX, index | {"seal": _fingerprint(index)})


def _demand_space(models: list[_Shards]) -> None:
    needed = sum(shards.size(number) for shards in models for number in shards.lacking)
    cache = models[0].folder.parent
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise ValueError(
            f"the activations that {cache} lacks take {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free there; "
            "make room, give another folder as activations.cache, or leave it out to stream"
        )


# ------------------------------------------------------------------ fingerprints, and the folder


def _fingerprint(content: Json) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _sha256(values: Tensor) -> str:
    return sha256(values.view(torch.uint8).numpy().data).hexdigest()


def _row_keys(corpus: Corpus) -> list[bytes]:
    parts = map(corpus.select, torch.arange(len(corpus.input_ids)).split(ROWS_AT_A_TIME))
    return [key for part in parts for key in _keys(part.input_ids, part.position_ids)]


def _keys(input_ids: Int[Tensor, "rows context"], position_ids: Int[Tensor, "rows context"]) -> list[bytes]:
    """Hash of each row: of its tokens, and of where documents begin."""
    content = torch.cat((input_ids, position_ids), dim=1).to("cpu", torch.int32).numpy()
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in content]


def _missing(places: dict[str, Path]) -> tuple[str, ...]:
    """Models whose folders are not whole; of those that share one, the first."""
    first = {place: name for name, place in reversed(places.items())}
    return tuple(name for name, place in places.items() if first[place] == name and not (place / INDEX).is_file())


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Hold the cache for this process, once no other fills it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another featdiff that fills {folder}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
