import json

import pytest
from records import Measured, machine, put_between, records, table
from rows import OWN, Row


def row(name: str) -> Row:
    return Row(name, name.split()[0], "", False, "", "python")


def measured(name: str, wall: tuple[float, ...], peak_mib: float = 500.0) -> Measured:
    born = {"version": "1.0", "torch": "2.0", "python": "3.11", "switches": [], "imports_mib": 200.0}
    fits = ({"unexplained": 1.0, "l0": 50.0}, {"unexplained": 0.9, "l0": 51.0})
    return Measured(row(name), born, wall, tuple(2 * seconds for seconds in wall), peak_mib, fits)


def test_a_ratio_is_one_of_medians_within_its_own_group() -> None:
    groups = [
        [measured("featdiff sparse", (1.0, 2.0, 9.0)), measured("ckkissane", (10.0, 20.0, 12.0))],
        [measured("featdiff sparse", (4.0, 4.0, 4.0)), measured("crosscode", (20.0, 20.0, 1.0))],
    ]
    found = {record["name"]: record for record in records(groups, tokens=120)}
    assert found["ckkissane"]["ratio"] == 12 / 2
    assert found["crosscode"]["ratio"] == 20 / 4
    assert found["ckkissane"]["median_seconds"] == 12 and found["ckkissane"]["tokens_per_second"] == 10
    assert found["ckkissane"]["fastest_seconds"] == 10 and found["ckkissane"]["slowest_seconds"] == 20
    assert found["ckkissane"]["cpu_ratio"] == 6 and found["ckkissane"]["ratio_to_dense"] is None


def test_a_row_of_several_groups_is_pooled() -> None:
    groups = [
        [measured("featdiff sparse", (1.0, 2.0), peak_mib=400.0)],
        [measured("featdiff sparse", (3.0, 5.0, 6.0), peak_mib=450.0)],
    ]
    (record,) = records(groups, tokens=1)
    assert record["median_seconds"] == 3 and record["peak_mib"] == 450


def test_the_table_has_a_line_for_every_record() -> None:
    document = {
        "command": "python benchmarks/training_step.py",
        "shape": {"name": "tiny", "models": 2, "d_model": 32, "features": 256, "tokens": 128},
        "l0": 50,
        "rounds": 1,
        "steps_per_round": 3,
        "machine": machine(2),
        "records": records([[measured(f"featdiff {name}", (0.25,)) for name in OWN]], tokens=128),
    }
    lines = table(json.loads(json.dumps(document))).splitlines()
    assert [line.split(" | ")[0] for line in lines[-len(OWN) :]] == [f"| featdiff {name}" for name in OWN]
    assert "| 250.0 | 500.0 | 512 | 1.00 |" in lines[-1]


def test_tables_take_the_place_of_older_ones() -> None:
    text = "above\n<!-- a -->\nold\n<!-- /a -->\nbelow\n"
    once = put_between(text, "a", "| new |")
    assert once == "above\n<!-- a -->\n\n| new |\n\n<!-- /a -->\nbelow\n"
    assert put_between(once, "a", "| new |") == once
    with pytest.raises(ValueError, match="the document lacks"):
        put_between(text, "b", "| new |")
