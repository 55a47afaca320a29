"""The corpus: one token stream that every model reads (A.1).

1. Each source gives documents in seeded order, as many as its share of the tokens asks for.
2. Documents are tokenised in batches; each begins with the tokenizer's BOS token, or EOS where there is no BOS.
3. Of every source, some documents are held out, until its share of the held-out tokens is filled.
4. The others, of all sources together, are shuffled and packed without padding into rows of `context` tokens.

A document may run on over the end of a row. Attention does not, so its first token in the next row counts as a start.
"""

import sys
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate, islice, pairwise
from math import floor
from random import Random
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from datasets import IterableDataset, load_dataset
from jaxtyping import Bool, Int
from torch import Tensor

from featdiff.config.study import CorpusSettings, SourceSettings
from featdiff.data.sources import documents, on_this_machine, opening, shuffled, text_of
from featdiff.progress import Progress

BATCH = 256  # documents that are tokenised at a time


@runtime_checkable
class TextTokenizer(Protocol):
    """Tokenizer of transformers, or any function that gives token ids as one does."""

    def __call__(
        self, text: list[str], *, add_special_tokens: bool, verbose: bool
    ) -> Mapping[str, list[list[int]]]: ...


@dataclass(frozen=True)
class Corpus:
    """Documents packed into rows without padding."""

    input_ids: Int[Tensor, "sequences context"]
    """int32."""
    document_start: Bool[Tensor, "sequences context"]
    """The first token of each document, and of each row."""

    @property
    def position_ids(self) -> Int[Tensor, "sequences context"]:
        """Position of each token in its document; attention that stays inside documents is read off these."""
        index = torch.arange(self.input_ids.shape[1], device=self.input_ids.device).expand_as(self.input_ids)
        return index - index.where(self.document_start, 0).cummax(dim=1).values

    def select(self, rows: Int[Tensor, " rows"]) -> "Corpus":
        """The corpus of these rows only."""
        return Corpus(self.input_ids[rows], self.document_start[rows])


def build_corpus(settings: CorpusSettings, tokenizer: TextTokenizer, *, seed: int) -> tuple[Corpus, Corpus]:
    """Build the training corpus and the held-out one: disjoint documents, the same shares of the sources in tokens.

    Token numbers are rounded down to whole rows. Where a source holds less than its share, nothing is repeated: both
    corpora shrink until the shares hold, and stderr says so. Raises ValueError for a source that is absent, empty or
    unreadable, and when not even one row is left.
    """
    sources = [source for source in settings.sources if source.share > 0]
    documents, wanted = _Documents(tokenizer), settings.tokens + settings.held_out_tokens
    texts = [_texts(source, index, settings, tokenizer, seed) for index, source in enumerate(sources)]
    parts: list[Int[Tensor, "documents 2"]] = []
    with Progress("tokenising", total=wanted, unit="token") as progress:
        for text, source in zip(texts, sources, strict=True):
            parts.append(documents.read(text, source.share * wanted, progress.advance))
            if not len(parts[-1]):
                raise ValueError(f"the corpus source {source.path} holds no text; give another, or take it out")
    ids = documents.as_array()
    generator = torch.Generator().manual_seed(seed)
    training, held_out = (
        _packed(spans[torch.randperm(len(spans), generator=generator)], ids, settings.context)
        for spans in _split(sources, [_ordered(part, ids, seed) for part in parts], settings)
    )
    return training, held_out


def tokenize(
    texts: Iterable[str], tokenizer: TextTokenizer, *, context: int = 512, tokens: int | None = None
) -> Corpus:
    """Pack texts of your own as `build_corpus` packs documents: no padding, in the order in which they are given.

    texts: one document each; a list, a generator, or a column of a data set, such as `dataset["text"]`. Blank ones are
        left out. What is left after the last full row is dropped.
    tokenizer: that of the models. Every document begins with its BOS token, or EOS where there is no BOS.
    context: tokens per row.
    tokens: how many tokens to read at least, where there are so many; None reads all texts.

    Returns a `Corpus` whose `input_ids` (int32) and `document_start` (bool) are [rows context]. Raises ValueError for
    texts that are no strings, and where they do not fill a row.
    """
    if isinstance(texts, str):
        raise ValueError("the texts are one string; give a list of strings")
    if context < 1:
        raise ValueError(f"context is {context}; give at least 1 token per row")
    documents = _Documents(tokenizer)
    spans = documents.read(map(_string, texts), float("inf") if tokens is None else tokens)
    if len(documents.ids) < context:
        raise ValueError(f"the texts hold {len(documents.ids)} tokens, less than a row of {context}; give more text")
    return _packed(spans, documents.as_array(), context)


def _string(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError(f"a text is of type {type(text).__name__}, not str; of a data set give a column of text")
    return text


# ------------------------------------------------------------------ documents, as text and as tokens


def _texts(
    source: SourceSettings, index: int, settings: CorpusSettings, tokenizer: TextTokenizer, seed: int
) -> Iterator[str]:
    random = Random(f"{seed} {index}")
    if not on_this_machine(source):
        return shuffled(_hub(source, seed), random)
    text = opening(source)
    tokens = len(tokenizer([text], add_special_tokens=False, verbose=False)["input_ids"][0])
    characters = max(1, settings.context * len(text) // max(1, tokens))
    return shuffled(documents(source, characters, random), random)


def _hub(source: SourceSettings, seed: int) -> Iterator[str]:
    with _reachable(source):
        rows = load_dataset(source.path, source.subset, split=source.split, streaming=True)
    assert isinstance(rows, IterableDataset)
    rows = rows.shuffle(seed=seed, buffer_size=1)  # the order of shards; `shuffled` sees to the documents
    return _hub_texts(rows, source)


def _hub_texts(rows: IterableDataset, source: SourceSettings) -> Iterator[str]:
    with _reachable(source):
        for row in rows:
            yield text_of(row, source.field, source.path)


@contextmanager
def _reachable(source: SourceSettings) -> Generator[None]:
    try:
        yield
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read the hub data set {source.path} ({reason}); check its id, the network") from error


@dataclass(frozen=True)
class _Documents:
    """Tokenised documents, one after the other; document i is `ids[ends[i]:ends[i + 1]]`."""

    tokenizer: TextTokenizer
    ids: "array[int]" = field(default_factory=lambda: array("i"))
    ends: "array[int]" = field(default_factory=lambda: array("q", [0]))

    def read(
        self, texts: Iterator[str], wanted: float, advance: Callable[[int], object] = lambda tokens: None
    ) -> Int[Tensor, "documents 2"]:
        """Append documents until `wanted` tokens more are there; return where each begins and ends.

        One document more than wanted: the held-out corpus throws the rest of its last document away.
        """
        bos, eos = (getattr(self.tokenizer, f"{name}_token_id", None) for name in ("bos", "eos"))
        start = [token for token in (bos, eos) if token is not None][:1]
        texts = filter(str.strip, texts)
        first, before, longest = len(self.ends) - 1, len(self.ids), 0
        while len(self.ids) - before < wanted + longest and (batch := list(islice(texts, BATCH))):
            had = len(self.ids)
            for document in filter(None, self.tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]):
                self.ids.extend((*start, *document))
                self.ends.append(len(self.ids))
                longest = max(longest, len(start) + len(document))
            advance(len(self.ids) - had)
        ends = torch.tensor(self.ends[first:])
        return torch.stack((ends[:-1], ends[1:]), dim=1)

    def as_array(self) -> np.ndarray:
        """All tokens, int32; nothing can be read into the documents while it lives."""
        return np.frombuffer(self.ids, dtype=np.int32)


# ------------------------------------------------------------------ shares


@dataclass(frozen=True)
class _Ordered:
    """A source's documents in the order in which they are taken; equal documents are neighbours, by their digests."""

    spans: Int[Tensor, "documents 2"]
    digests: list[bytes]

    @property
    def tokens(self) -> int:
        return int((self.spans[:, 1] - self.spans[:, 0]).sum())

    def take(self, tokens: int) -> tuple[Int[Tensor, "taken 2"], "_Ordered"]:
        """The first documents, `tokens` long, the last cut short; and the documents that are none of these."""
        if tokens == 0:
            return self.spans[:0], self
        ends = (self.spans[:, 1] - self.spans[:, 0]).cumsum(dim=0)
        assert tokens <= ends[-1]
        used = int(torch.searchsorted(ends, tokens)) + 1
        taken = self.spans[:used].clone()
        taken[-1, 1] -= ends[used - 1] - tokens
        while used < len(self.digests) and self.digests[used] == self.digests[used - 1]:
            used += 1
        return taken, _Ordered(self.spans[used:], self.digests[used:])


def _ordered(spans: Int[Tensor, "documents 2"], ids: np.ndarray, seed: int) -> _Ordered:
    """Documents ordered by a seeded hash of their tokens: copies of one document stay on one side of the split."""
    key = str(seed).encode()
    digests = [blake2b(ids[begin:end].tobytes(), digest_size=16, key=key).digest() for begin, end in spans.tolist()]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    return _Ordered(spans[order], [digests[index] for index in order])


def _split(
    sources: list[SourceSettings], parts: list[_Ordered], settings: CorpusSettings
) -> tuple[Int[Tensor, "training 2"], Int[Tensor, "held_out 2"]]:
    """Spans of the training and of the held-out documents, each source's by its share of the tokens."""
    shares, context = [source.share for source in sources], settings.context
    wanted = settings.tokens + settings.held_out_tokens
    scarcest = min(range(len(parts)), key=lambda index: parts[index].tokens / shares[index])
    possible = min(1.0, parts[scarcest].tokens / (shares[scarcest] * wanted))
    held_out_rows = floor(possible * settings.held_out_tokens / context)
    held_out = [p.take(n) for p, n in zip(parts, _allot(held_out_rows * context, shares), strict=True)]
    rest = [remaining for _, remaining in held_out]
    rows = settings.tokens // context
    while any(n > part.tokens for n, part in zip(_allot(rows * context, shares), rest, strict=True)):
        most = min(floor(part.tokens / (share * context)) for part, share in zip(rest, shares, strict=True))
        rows = min(rows - 1, most)
    _report(sources[scarcest], parts[scarcest].tokens, rows, held_out_rows, settings)
    training = [part.take(n)[0] for part, n in zip(rest, _allot(rows * context, shares), strict=True)]
    return torch.cat(training), torch.cat([taken for taken, _ in held_out])


def _allot(tokens: int, shares: list[float]) -> list[int]:
    """Divide `tokens` by shares into whole numbers, each within one of its share."""
    ends = [round(tokens * total) for total in accumulate(shares[:-1])]
    return [end - begin for begin, end in pairwise([0, *ends, tokens])]


def _report(source: SourceSettings, found: int, rows: int, held_out_rows: int, settings: CorpusSettings) -> None:
    context, tokens, held_out_tokens = settings.context, settings.tokens, settings.held_out_tokens
    message = (
        f"{rows * context:,} of {tokens:,} training tokens and {held_out_rows * context:,} of {held_out_tokens:,} "
        f"held-out tokens can be had in rows of {context:,}: the corpus source {source.path} holds {found:,} tokens, "
        f"its share asks for {floor(source.share * (tokens + held_out_tokens)):,}"
    )
    if rows < 1 or held_out_rows < 1:
        raise ValueError(f"{message}; each corpus needs a row at least: give more text, or a smaller corpus.context")
    if rows < tokens // context or held_out_rows < held_out_tokens // context:
        print(f"{message}; nothing is repeated", file=sys.stderr)


# ------------------------------------------------------------------ packing


def _packed(spans: Int[Tensor, "documents 2"], ids: np.ndarray, context: int) -> Corpus:
    """Pack the documents one after the other, in full rows of `context` tokens."""
    ends = (spans[:, 1] - spans[:, 0]).cumsum(dim=0)
    tokens = np.empty(int(ends[-1]), dtype=np.int32)
    for (begin, end), stop in zip(spans.tolist(), ends.tolist(), strict=True):
        tokens[stop - (end - begin) : stop] = ids[begin:end]
    start = torch.zeros(len(tokens), dtype=torch.bool)
    start[ends[:-1]] = True
    full = len(tokens) // context * context
    start = start[:full].view(-1, context)
    start[:, 0] = True
    return Corpus(torch.from_numpy(tokens[:full]).view(-1, context), start)
