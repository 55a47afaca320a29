import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from featdiff.config.study import PosttrainSettings
from featdiff.data.prompts import Prompt, load_prompts

ROWS = [{"question": "2+2=", "gold": 4, "id": "a"}, {"question": "3+2=", "gold": "5", "id": "b"}]


def settings(path: Path, **changes: object) -> PosttrainSettings:
    fields = {"prompts": str(path), "prompt_field": "question", "answer_field": "gold", "teacher": "t.jsonl"}
    return PosttrainSettings.model_validate(fields | changes)


def written(folder: Path, lines: Sequence[object], name: str = "prompts.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_prompts_come_in_the_order_of_the_file_with_numbers_as_text(tmp_path: Path) -> None:
    assert load_prompts(settings(written(tmp_path, ROWS))) == [Prompt("a", "2+2=", "4"), Prompt("b", "3+2=", "5")]


def test_without_an_id_column_the_row_number_is_the_id(tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("question", "gold")} for row in ROWS]
    assert [prompt.id for prompt in load_prompts(settings(written(tmp_path, rows)))] == ["0", "1"]


def test_parquet_holds_the_same_prompts_as_jsonl(tmp_path: Path) -> None:
    rows = [row | {"gold": str(row["gold"])} for row in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "prompts.parquet")
    from_parquet = load_prompts(settings(tmp_path / "prompts.parquet"))
    assert from_parquet == load_prompts(settings(written(tmp_path, rows)))


def test_a_limit_keeps_the_first_prompts(tmp_path: Path) -> None:
    assert [prompt.id for prompt in load_prompts(settings(written(tmp_path, ROWS), limit=1))] == ["a"]


@pytest.mark.parametrize(
    ("name", "lines", "says"),
    [
        ("p.jsonl", [], "holds no rows"),
        ("p.jsonl", [{"question": "2+2="}], "row 0 has no column 'gold'; it has question"),
        ("p.jsonl", [ROWS[0], {"question": " ", "gold": 1, "id": "c"}], "'question' of row 1 is empty"),
        ("p.jsonl", [{"question": ["chat"], "gold": 1}], "'question' of row 0 holds a list"),
        ("p.jsonl", [ROWS[0], ROWS[0]], "the id 'a' occurs twice"),
        ("p.jsonl", [ROWS[0], '{"question": \n'], "posttrain.prompts: .*:2 is not JSON"),
        ("p.jsonl", ["[1]\n"], "posttrain.prompts: .*:1 holds list, not an object"),
        ("p.csv", [], "ends in .csv"),
        ("p.parquet", ["no parquet"], "posttrain.prompts: cannot read .*p.parquet"),
    ],
)
def test_bad_prompts_are_refused_in_one_line(tmp_path: Path, name: str, lines: Sequence[object], says: str) -> None:
    with pytest.raises(ValueError, match=says) as refusal:
        load_prompts(settings(written(tmp_path, lines, name)))
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"posttrain.prompts: no file .*absent.jsonl"):
        load_prompts(settings(tmp_path / "absent.jsonl"))
