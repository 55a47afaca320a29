"""Tests of reading documents from files."""

import json
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featdiff.config.study import SourceSettings
from featdiff.data import sources
from featdiff.data.sources import documents, on_this_machine, opening, shuffled


def source(path: Path | str, **options: str) -> SourceSettings:
    return SourceSettings.model_validate({"path": str(path), "share": 1.0, **options})


def read(path: Path | str, characters: int = 50, **options: str) -> list[str]:
    return list(documents(source(path, **options), characters, Random(0)))


def test_a_row_of_jsonl_or_parquet_is_a_document(tmp_path: Path) -> None:
    rows = [{"text": "one\n\ntwo"}, {"text": "three"}]
    (tmp_path / "a.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read(tmp_path / "a.jsonl") == read(tmp_path / "a.parquet") == ["one\n\ntwo", "three"]


def test_another_column_is_read_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"trace": "yes", "text": "no"}')
    assert read(tmp_path / "a.jsonl", field="trace") == ["yes"]


def test_a_text_file_is_cut_after_paragraphs_else_lines_else_words_else_anywhere(tmp_path: Path) -> None:
    text = "aaaa bbbb\n\ncccc\n" + "dddd eeee ffff gggg\n" + "h" * 30
    (tmp_path / "a.txt").write_text(text)
    assert read(tmp_path / "a.txt", characters=16) == [
        "aaaa bbbb\n\n",
        "cccc\ndddd eeee ",
        "ffff gggg\n",
        "h" * 16,
        "h" * 14,
    ]


@settings(max_examples=50, deadline=None)
@given(text=st.text(alphabet="ab \n", max_size=300), characters=st.integers(1, 40), block=st.integers(1, 30))
def test_the_documents_of_a_text_file_make_up_the_file(
    tmp_path_factory: pytest.TempPathFactory, text: str, characters: int, block: int
) -> None:
    file = tmp_path_factory.mktemp("text") / "a.txt"
    file.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK", block)
        pieces = read(file, characters=characters)
    assert "".join(pieces) == text
    assert all(len(piece) <= characters for piece in pieces)


def test_a_folder_gives_all_its_readable_files_or_those_of_one_kind(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.txt").write_text("prose")
    (tmp_path / "b.jsonl").write_text('{"text": "row"}')
    (tmp_path / "c.bin").write_bytes(b"\xff\x00")
    assert sorted(read(tmp_path)) == ["prose", "row"]
    assert read(tmp_path, kind="jsonl") == ["row"]
    with pytest.raises(ValueError, match="holds no file of kind parquet"):
        read(tmp_path, kind="parquet")
    assert opening(source(tmp_path)) == "prose"
    assert opening(source(tmp_path / "b.jsonl")) == ""


def test_a_path_is_local_and_what_is_no_path_is_a_hub_data_set(tmp_path: Path) -> None:
    assert on_this_machine(source(tmp_path))
    assert not on_this_machine(source("someone/something"))
    assert not on_this_machine(source(tmp_path, kind="hub"))


@pytest.mark.parametrize("path", ["/absent", "./absent", "absent.txt", "some/where/else"])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=f"the corpus source {path} does not exist"):
        on_this_machine(source(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\xff\xfe", "a.txt is not UTF-8 text"),
        ("a.jsonl", b'{"text": "x"}\n{"text":', r"a.jsonl:2 is not JSON"),
        ("a.jsonl", b'"text"', "a.jsonl:1 holds str, not an object"),
        ("a.jsonl", b'{"question": "x", "answer": "y"}', "a.jsonl:1 has no column 'text', only question, answer"),
        ("a.jsonl", b'{"text": null}', "column 'text' of .*a.jsonl:1 holds NoneType, not text"),
        ("a.parquet", b"no parquet at all", "cannot read .*a.parquet"),
        ("a.bin", b"", "ends in none of .txt"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_one_clear_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist([{"question": "x", "answer": "y"}]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="has no column 'text', only question, answer"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("buffer", [1, 7, 100])
def test_shuffling_loses_and_repeats_nothing_and_depends_on_the_seed_alone(buffer: int) -> None:
    texts = [str(number) for number in range(40)]
    drawn = list(shuffled(iter(texts), Random(3), buffer))
    assert sorted(drawn, key=int) == texts
    assert drawn == list(shuffled(iter(texts), Random(3), buffer))
    if buffer > 1:
        assert drawn != texts
