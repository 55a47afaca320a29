"""Tests of the corpus: shares, packing, the held-out split."""

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from featdiff.config.study import CorpusSettings
from featdiff.data.corpus import Corpus, build_corpus, tokenize

BOS, EOS, FIRST = 0, 1, 2
WORDS = 5000


def tokenizer(bos: bool = True) -> PreTrainedTokenizerFast:
    """Word w17 is token 19."""
    vocabulary = {"<s>": BOS, "</s>": EOS} | {f"w{index}": index + FIRST for index in range(WORDS)}
    backend = Backend(models.WordLevel(vocabulary, unk_token="</s>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"eos_token": "</s>"} | ({"bos_token": "<s>"} if bos else {})
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def rows(file: Path, first: int, documents: int, length: int) -> str:
    """Documents of distinct words: document i holds words first + i * length onwards."""
    texts = [" ".join(f"w{first + i * length + j}" for j in range(length)) for i in range(documents)]
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return str(file)


def corpus_settings(paths: dict[str, float], tokens: int, held_out: int, context: int = 16) -> CorpusSettings:
    sources = [{"path": path, "share": share} for path, share in paths.items()]
    return CorpusSettings.model_validate(
        {"sources": sources, "tokens": tokens, "held_out_tokens": held_out, "context": context}
    )


def documents_of(corpus: Corpus) -> list[list[int]]:
    """The packed documents, read off their BOS tokens."""
    flat = corpus.input_ids.flatten().tolist()
    starts = [index for index, token in enumerate(flat) if token == BOS] + [len(flat)]
    return [flat[begin:end] for begin, end in pairwise(starts)]


@pytest.fixture
def two_sources(tmp_path: Path) -> tuple[str, str]:
    return rows(tmp_path / "a.jsonl", 0, 150, 9), rows(tmp_path / "b.jsonl", 2000, 120, 13)


def test_shares_hold_in_tokens_in_both_corpora(two_sources: tuple[str, str]) -> None:
    settings = corpus_settings({two_sources[0]: 0.25, two_sources[1]: 0.75}, tokens=800, held_out=160)
    training, held_out = build_corpus(settings, tokenizer(), seed=0)
    assert (training.input_ids.shape, held_out.input_ids.shape) == ((50, 16), (10, 16))
    for corpus, tokens in ((training, 800), (held_out, 160)):
        documents = documents_of(corpus)
        from_b = sum(len(document) for document in documents if document[-1] >= 2000 + FIRST)
        assert from_b == 0.75 * tokens


def test_documents_are_whole_begin_with_bos_and_occur_once(two_sources: tuple[str, str]) -> None:
    settings = corpus_settings({two_sources[0]: 0.5, two_sources[1]: 0.5}, tokens=1600, held_out=320)
    training, held_out = build_corpus(settings, tokenizer(), seed=0)
    documents = documents_of(training) + documents_of(held_out)
    short = 0
    for document in documents:
        first = document[1] - FIRST
        length = 9 if first < 2000 else 13
        assert document == [BOS, *range(first + FIRST, first + FIRST + len(document) - 1)]
        assert (first % 2000) % length == 0
        short += len(document) < length + 1
    assert short <= 4  # the last document of each source in each corpus
    words = [token for document in documents for token in document[1:]]
    assert len(words) == len(set(words))


def test_sources_are_shuffled_jointly(two_sources: tuple[str, str]) -> None:
    settings = corpus_settings({two_sources[0]: 0.5, two_sources[1]: 0.5}, tokens=1600, held_out=160)
    training, _ = build_corpus(settings, tokenizer(), seed=0)
    of_b = [document[-1] >= 2000 + FIRST for document in documents_of(training)]
    changes = sum(one != other for one, other in pairwise(of_b))
    assert changes > len(of_b) / 4


def test_the_same_seed_gives_the_same_corpus_and_another_seed_another(two_sources: tuple[str, str]) -> None:
    settings = corpus_settings({two_sources[0]: 0.5, two_sources[1]: 0.5}, tokens=800, held_out=160)
    one, again, other = (build_corpus(settings, tokenizer(), seed=seed) for seed in (1, 1, 2))
    for index in range(2):
        assert torch.equal(one[index].input_ids, again[index].input_ids)
        assert torch.equal(one[index].document_start, again[index].document_start)
        assert not torch.equal(one[index].input_ids, other[index].input_ids)


def test_starts_are_the_bos_tokens_and_the_first_token_of_every_row(two_sources: tuple[str, str]) -> None:
    settings = corpus_settings({two_sources[0]: 1.0}, tokens=800, held_out=160)
    training, _ = build_corpus(settings, tokenizer(), seed=0)
    wanted = training.input_ids == BOS
    wanted[:, 0] = True
    assert torch.equal(training.document_start, wanted)
    assert training.input_ids.dtype == torch.int32


def test_positions_count_from_the_last_start() -> None:
    start = torch.tensor([[1, 0, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0]]).bool()
    corpus = Corpus(torch.zeros(2, 6, dtype=torch.int32), start)
    assert corpus.position_ids.tolist() == [[0, 1, 2, 0, 0, 1], [0, 1, 2, 3, 4, 5]]
    assert corpus.select(torch.tensor([1])).position_ids.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_without_a_bos_token_documents_begin_with_eos(two_sources: tuple[str, str]) -> None:
    settings = corpus_settings({two_sources[0]: 1.0}, tokens=800, held_out=160)
    training, _ = build_corpus(settings, tokenizer(bos=False), seed=0)
    assert int((training.input_ids == EOS).sum()) in (80, 81)
    assert not (training.input_ids == BOS).any()


def test_a_document_longer_than_a_row_goes_on_in_the_next(tmp_path: Path) -> None:
    path = rows(tmp_path / "long.jsonl", 0, 20, 100)
    training, _ = build_corpus(corpus_settings({path: 1.0}, 1600, 16), tokenizer(), seed=0)
    assert max(len(document) for document in documents_of(training)) == 101
    assert training.document_start[:, 0].all()


def test_a_text_file_gives_documents_of_about_a_row(tmp_path: Path) -> None:
    paragraphs = [" ".join(f"w{5 * i + j}" for j in range(5)) for i in range(400)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    training, _ = build_corpus(corpus_settings({str(tmp_path / "a.txt"): 1.0}, 1600, 160, 64), tokenizer(), seed=0)
    lengths = [len(document) for document in documents_of(training)[1:-1]]
    assert 48 < sum(lengths) / len(lengths) < 72


def test_copies_of_a_document_stay_on_one_side_of_the_split(tmp_path: Path) -> None:
    text = Path(rows(tmp_path / "a.jsonl", 0, 40, 15)).read_text()
    (tmp_path / "a.jsonl").write_text("\n".join([text] * 4))
    for seed in range(5):
        training, held_out = build_corpus(
            corpus_settings({str(tmp_path / "a.jsonl"): 1.0}, 1600, 336), tokenizer(), seed=seed
        )
        words = set(training.input_ids.flatten().tolist()) & set(held_out.input_ids.flatten().tolist())
        assert words == {BOS}


def test_a_scarce_source_shrinks_both_corpora_and_says_so(
    two_sources: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = corpus_settings({two_sources[0]: 0.5, two_sources[1]: 0.5}, tokens=6400, held_out=640)
    training, held_out = build_corpus(settings, tokenizer(), seed=0)
    # a.jsonl holds 150 documents of 10 tokens, so 2 x 1500 of the 7040 tokens can be had
    assert 2640 <= training.input_ids.numel() <= 3000 * 10 / 11
    assert held_out.input_ids.numel() == 3000 // 11 // 16 * 16
    of_b = sum(len(document) for document in documents_of(training) if document[-1] >= 2000 + FIRST)
    assert of_b == training.input_ids.numel() / 2
    words = [token for document in documents_of(training) for token in document[1:]]
    assert len(words) == len(set(words))
    said = capsys.readouterr().err
    assert "a.jsonl holds 1,500 tokens, its share asks for 3,520" in said
    assert said.count("\n") == 1


def test_a_large_source_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", 0, 300, 9)
    file = Path(path)
    file.write_text("\n".join([file.read_text()] * 40 + ["this line is not JSON"]))
    build_corpus(corpus_settings({path: 1.0}, 160, 16), tokenizer(), seed=0)
    with pytest.raises(ValueError, match="is not JSON"):
        build_corpus(corpus_settings({path: 1.0}, 200_000, 16), tokenizer(), seed=0)


def test_a_source_without_a_share_is_not_read(two_sources: tuple[str, str]) -> None:
    settings = corpus_settings({two_sources[0]: 1.0, "/absent.jsonl": 0.0}, tokens=800, held_out=160)
    build_corpus(settings, tokenizer(), seed=0)


@pytest.mark.parametrize("text", ["", "\n\n", '{"text": "  "}'])
def test_an_empty_source_is_refused(tmp_path: Path, two_sources: tuple[str, str], text: str) -> None:
    (tmp_path / "empty.jsonl").write_text(text)
    settings = corpus_settings({two_sources[0]: 0.5, str(tmp_path / "empty.jsonl"): 0.5}, 800, 160)
    with pytest.raises(ValueError, match=r"empty\.jsonl holds no text"):
        build_corpus(settings, tokenizer(), seed=0)


def test_less_than_a_row_is_refused(two_sources: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"0 of 15 held-out tokens .* needs? a row at least"):
        build_corpus(corpus_settings({two_sources[0]: 1.0}, 800, 15), tokenizer(), seed=0)
    with pytest.raises(ValueError, match=r"a\.jsonl holds 1,500 tokens, its share asks for 9,000"):
        build_corpus(corpus_settings({two_sources[0]: 1.0}, 8000, 1000, 2000), tokenizer(), seed=0)


def test_an_absent_source_is_found_out_before_any_is_read(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("not JSON")
    settings = corpus_settings({str(tmp_path / "bad.jsonl"): 0.5, "./absent.jsonl": 0.5}, 800, 160)
    with pytest.raises(ValueError, match=r"absent\.jsonl does not exist"):
        build_corpus(settings, tokenizer(), seed=0)


def test_a_data_set_is_streamed_through_datasets(tmp_path: Path) -> None:
    rows(tmp_path / "train.jsonl", 0, 150, 9)
    source = {"path": str(tmp_path), "share": 1.0, "kind": "hub"}
    settings = CorpusSettings.model_validate(
        {"sources": [source], "tokens": 800, "held_out_tokens": 160, "context": 16}
    )
    training, held_out = build_corpus(settings, tokenizer(), seed=0)
    words = [t for document in documents_of(training) + documents_of(held_out) for t in document[1:]]
    assert len(words) == len(set(words)) > 800
    absent = CorpusSettings.model_validate(settings.model_dump() | {"sources": [source | {"field": "body"}]})
    with pytest.raises(ValueError, match="has no column 'body', only text"):
        build_corpus(absent, tokenizer(), seed=0)


def test_a_hub_data_set_that_cannot_be_reached_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"^cannot read the hub data set nobody/nothing \(.*\); check its id"):
        build_corpus(corpus_settings({"nobody/nothing": 1.0}, 800, 160), tokenizer(), seed=0)


def test_texts_are_packed_in_their_order_by_hand() -> None:
    """Three documents of 4, 3 and 5 tokens, a blank one between, in rows of 5; 2 tokens are left over."""
    texts = ["w0 w1 w2", " ", "w3 w4", "w5 w6 w7 w8"]
    corpus = tokenize(iter(texts), tokenizer(), context=5)
    assert corpus.input_ids.tolist() == [[BOS, 2, 3, 4, BOS], [5, 6, BOS, 7, 8]]
    assert corpus.document_start.tolist() == [[True, False, False, False, True], [True, False, True, False, False]]
    assert corpus.position_ids.tolist() == [[0, 1, 2, 3, 0], [0, 1, 0, 1, 2]]
    assert corpus.input_ids.dtype == torch.int32


def test_a_column_of_a_data_set_is_packed_as_the_list_of_its_texts() -> None:
    texts = [" ".join(f"w{7 * i + j}" for j in range(7)) for i in range(600)]
    of_column = tokenize(Dataset.from_dict({"text": texts})["text"], tokenizer(), context=32)
    of_list = tokenize(texts, tokenizer(), context=32)
    assert torch.equal(of_column.input_ids, of_list.input_ids) and len(of_list.input_ids) == 600 * 8 // 32
    assert torch.equal(of_column.document_start, of_list.document_start)


def test_no_more_texts_are_read_than_the_tokens_ask_for() -> None:
    asked = []

    def endless() -> Iterator[str]:
        while True:
            asked.append(0)
            yield "w1 w2 w3"

    assert tokenize(endless(), tokenizer(), context=8, tokens=2000).input_ids.numel() >= 2000
    assert len(asked) <= 1024


@pytest.mark.parametrize(
    ("texts", "context", "says"),
    [
        ("w0 w1", 4, "one string"),
        (iter([{"text": "w0"}]), 4, "of type dict"),
        (iter([["w0"]]), 4, "of type list"),
        ([], 4, "0 tokens, less than a row of 4"),
        (["w0 w1"], 4, "3 tokens, less than a row of 4"),
        (["w0 w1"], 0, "context is 0"),
    ],
)
def test_texts_that_cannot_be_packed_are_refused(texts: Iterable, context: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tokenize(texts, tokenizer(), context=context)
