"""The benchmark of the harvest, at sizes that tell nothing about speed."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from harvest import LINEUPS, NAMES, SIZES, Spent, many_crosscoders, ratios, take_turns, text, truncated

HARVEST = Path(__file__).parents[2] / "benchmarks" / "harvest.py"


def test_the_benchmark_measures_the_wanted_study() -> None:
    assert (len(NAMES), len(LINEUPS)) == (11, 13)
    assert sorted(Counter(map(len, LINEUPS.values())).items()) == [(2, 12), (3, 1)]


def test_every_contestant_runs_once_a_round_after_one_to_warm_up() -> None:
    ran: list[str] = []
    contestants = {name: lambda name=name: ran.append(name) for name in "abc"}
    found = take_turns(contestants, rounds=9)
    assert all(sorted(ran[start : start + 3]) == ["a", "b", "c"] for start in range(0, 30, 3))
    assert len({tuple(ran[start : start + 3]) for start in range(0, 30, 3)}) > 1
    assert {name: len(spent.wall) for name, spent in found.items()} == dict.fromkeys("abc", 9)


def test_a_ratio_is_the_median_of_theratios_of_a_round() -> None:
    found = ratios(Spent((2.0, 9.0, 30.0), (4.0, 4.0, 4.0)), Spent((1.0, 3.0, 5.0), (1.0, 2.0, 4.0)))
    assert found == {"ratio": 3.0, "cpu_ratio": 2.0}


def test_the_truncated_model_is_compared_on_equal_activations(tmp_path: Path) -> None:
    part = truncated(SIZES["tiny"], 2, tmp_path)
    assert part["identical"] and part["tokens"] == 64
    assert part["featdiff"]["tokens_per_second"] == pytest.approx(64 / part["featdiff"]["median_seconds"])
    assert {"ratio", "cpu_ratio"} <= part["transformers"].keys() - part["featdiff"].keys()


@pytest.mark.slow
def test_one_stream_for_all_crosscoders_is_compared_with_its_parts(tmp_path: Path) -> None:
    part = many_crosscoders(SIZES["tiny"], 1, tmp_path, "on")
    apart = part["harvest"]["median_seconds"] + part["steps"]["median_seconds"]
    assert part["ratio"] == pytest.approx(part["together"]["median_seconds"] / apart)


@pytest.mark.slow
def test_the_record_is_one_json_document() -> None:
    command = [sys.executable, str(HARVEST), "--size", "tiny", "--rounds", "1", "--part", "truncated"]
    printed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    document = json.loads(printed)
    assert document["versions"].keys() == {"python", "featdiff", "torch", "transformers"}
    assert document["machine"]["threads"] >= 1 and "x featdiff" in text(document)
