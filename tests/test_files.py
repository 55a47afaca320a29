"""Typed results on the disk."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from featdiff.files import as_json, load, load_by_name, read_json, save


@dataclass(frozen=True)
class Part:
    name: str
    share: float | None


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    counts: dict[str, int]


WHOLE = Whole((Part("a", 0.5), Part("b", None)), {"sft": 3})


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    save(WHOLE, tmp_path / "whole.json")
    assert load(Whole, tmp_path / "whole.json") == WHOLE


def test_results_by_name_come_back_as_they_were(tmp_path: Path) -> None:
    parts = {"first": Part("a", 0.5), "second": Part("b", None)}
    save(parts, tmp_path / "parts.json")
    assert load_by_name(Part, tmp_path / "parts.json") == parts
    with pytest.raises(ValueError, match=r"parts\.json is damaged"):
        load_by_name(Whole, tmp_path / "parts.json")


def test_an_undefined_number_is_null_and_comes_back_as_none(tmp_path: Path) -> None:
    save(Part("a", float("nan")), tmp_path / "part.json")
    assert read_json(tmp_path / "part.json") == {"name": "a", "share": None}
    assert load(Part, tmp_path / "part.json").share is None


def test_a_tensor_becomes_a_list() -> None:
    assert as_json({"values": torch.tensor([1.0, float("nan")])}) == {"values": [1.0, None]}


def test_what_has_no_form_in_json_is_refused() -> None:
    with pytest.raises(TypeError):
        as_json({"path": object()})


@pytest.mark.parametrize("text", ["", "{", '{"parts": 3, "counts": {}}', '{"counts": {}}', "[]"])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    place = tmp_path / "whole.json"
    place.write_text(text)
    with pytest.raises(ValueError, match=r"whole\.json is damaged") as error:
        load(Whole, place)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json"):
        load(Whole, tmp_path / "none.json")
