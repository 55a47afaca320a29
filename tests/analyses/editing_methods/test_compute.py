"""Ways to change the base as they lie in the run: chosen on one half, measured on the other, beside random edits."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_study import changed

from featdiff.analyses.editing_methods.compute import ways
from featdiff.analyses.editing_methods.items import items_of
from featdiff.analyses.editing_methods.methods import way_names
from featdiff.analyses.editing_methods.report_ways import ways_panel
from featdiff.analyses.editing_methods.text import ways_verdicts
from featdiff.files import read_json, write_json
from featdiff.run.evaluation import held_out_parts, outcomes_of
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan
from featdiff.workflow.registry import stages_of
from featdiff.workflow.runner import run_verb

EDITS = ("features", "features_printed", "steering", "neurons")
NAMES = (*EDITS, "sft", "rl")


@pytest.fixture
def record(tiny: Plan) -> dict[str, Any]:
    return read_json(tiny.run.path("ways", "ways.json"))


def by_name(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in record["ways"]}


def test_every_way_has_a_row_and_the_model_whose_behaviour_it_is_comes_last(record: dict[str, Any]) -> None:
    assert tuple(by_name(record)) == NAMES and record["target"] == "rl"
    assert [one["edit"] for one in record["ways"]] == [True, True, True, True, False, False]


def test_items_of_the_two_halves_are_all_items_and_share_none(tiny: Plan) -> None:
    lineup = load_lineup(tiny, ("base",))
    halves = [items_of(tiny, lineup, which) for which in ("choosing", "held out")]
    assert all(half is not None and half.tasks == ("colours", "animals") for half in halves)
    names = [set(half.requests.sample_ids) for half in halves if half]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 2 * 48
    for half, part in zip(halves, ("choosing", "held_out"), strict=True):
        assert half is not None
        wanted = sum(len(getattr(held_out_parts(tiny, task), part)) for task in half.tasks)
        assert int(half.critical.sum()) == wanted
        everyone = outcomes_of(tiny, "colours").correct.double().mean(dim=1)
        assert abs(float(half.correct["base"][half.of_task(0)].double().mean()) - float(everyone[0])) < 0.2


def test_items_are_at_most_as_many_as_the_study_says(tiny: Plan) -> None:
    plan = Plan(changed(tiny.study, ways__items=5))
    items = items_of(plan, load_lineup(tiny, ("base",)), "unseen")
    assert items is not None and items.tasks == ("numbers",) and len(items.task_of) == 10


def test_every_edit_stands_beside_its_random_edits_and_says_how_its_strength_was_chosen(
    tiny: Plan, record: dict[str, Any]
) -> None:
    settings, rows = tiny.study.ways, by_name(record)
    for name in EDITS:
        for measure in ("reliability", "generalization"):
            for items in ("critical", "mirror", "all"):
                one = rows[name][measure][items]
                (control,) = one["controls"].values()
                assert control["draws"] == settings.controls
                assert one["interval"][0] <= one["change"] <= one["interval"][1]
                assert one["beyond"]["value"] == pytest.approx(one["change"] - control["mean"])
        assert len(rows[name]["side_effects"]["control_kl"]) == settings.examined
    assert [value for value, *_ in rows["steering"]["tried"]] == list(settings.strengths)
    best = max(rows["steering"]["tried"], key=lambda one: one[1] - one[2])[0]
    assert rows["steering"]["title"] == f"steering by {best:g} x the mean difference"
    assert rows["features_printed"]["tried"] == [] and rows["features_printed"]["title"] == "features set to 3.0"


def test_changes_of_tuned_models_are_those_of_the_evaluation(tiny: Plan, record: dict[str, Any]) -> None:
    rows = by_name(record)
    assert rows["rl"]["reliability"]["critical"]["change"] == 1.0
    assert rows["rl"]["reliability"]["mirror"]["change"] == -1.0
    outcomes = outcomes_of(tiny, "numbers")
    for model in ("sft", "rl"):
        found = rows[model]["generalization"]["all"]
        assert found["n"] == 48 and "controls" not in found
        assert found["change"] == pytest.approx(outcomes.accuracy(model) - outcomes.accuracy("base"))


def test_neurons_moved_by_a_way_overlap_with_themselves_and_lie_above_the_tap(record: dict[str, Any]) -> None:
    above, everywhere = record["overlap"]
    assert above["where"] == "above the tap" and tuple(above["ways"]) == NAMES and above["neurons"] == 2 * 64
    assert everywhere["ways"] == ["neurons", "sft", "rl"] and everywhere["neurons"] == 4 * 64
    for one in record["overlap"]:
        table = torch.tensor(one["jaccard"])
        assert torch.equal(table, table.T) and (table.diagonal() == 1).all()
        assert 0 < one["chance"]["mean"] < one["chance"]["high"] < 1
        assert all(0 <= value <= 1 for value in one["halves"])
        assert [len(draws) for draws in one["controls"]] == [2 if name in EDITS else 0 for name in one["ways"]]


def test_side_effects_of_the_model_itself_are_its_distance_from_the_base(record: dict[str, Any]) -> None:
    rows = by_name(record)
    assert all(row["side_effects"]["kl"] > 0 and row["side_effects"]["tokens"] > 100 for row in rows.values())
    assert len({row["side_effects"]["cross_entropy"]["before"] for row in rows.values()}) == 1
    assert all(0 <= row["reliability"]["histogram_shift"] <= 1 for row in rows.values())


def test_shifts_lie_beside_each_way(tiny: Plan) -> None:
    for name in NAMES:
        shifts = load_file(tiny.run.path("ways", f"{name}.safetensors"))
        assert shifts["shift"].shape == (256,)
        assert {*shifts} == {"shift", "half0", "half1", *(["control0", "control1"] if name in EDITS else [])}
    features = load_file(tiny.run.path("ways", "features.safetensors"))["shift"]
    assert features[:128].abs().max() < 1e-3 < features[128:].abs().max()


def test_what_a_killed_attempt_has_finished_is_taken_over(own: Plan) -> None:
    folder = own.run.path("ways")
    wanted = (folder / "ways.json").read_bytes()
    (folder / "ways.json").unlink()
    for name in ("steering", "sft"):
        (folder / f"{name}.json").unlink()
    ways(own, folder)
    assert (folder / "ways.json").read_bytes() == wanted


def test_where_nothing_was_selected_on_the_choosing_half_nothing_is_compared(own: Plan) -> None:
    path = own.run.path("selection", "selection.json")
    record = read_json(path)
    write_json(path, record | {"without_held_out": record["without_held_out"] | {"chosen": []}})
    own.run.path("new").mkdir()
    ways(own, own.run.path("new"))
    found = read_json(own.run.path("new", "ways.json"))
    assert found["ways"] == [] and "no features were selected" in found["note"]


def test_a_model_that_is_called_like_an_edit_is_refused(tiny: Plan) -> None:
    plan = Plan(
        changed(tiny.study, lineup__tuned={"steering": "a", "rl": "b"}, lineup__checkpoints={}, crosscoder__lineups={})
    )
    with pytest.raises(ValueError, match="called steering, as one of the ways to edit the base; rename the model"):
        way_names(plan)


def test_a_study_can_leave_the_comparison_out(tiny: Plan) -> None:
    plan = Plan(changed(tiny.study, ways__compare=False))
    assert "ways" not in [stage.name for stage in stages_of(plan)]
    with pytest.raises(ValueError, match="this study has no stage ways"):
        run_verb(plan.study, "ways")


def test_the_report_shows_it_in_sentences_by_fixed_rules(tiny: Plan) -> None:
    panel = ways_panel(tiny)
    assert panel is not None and len(panel.rows) == 6 and [row.reference for row in panel.rows].count(True) == 1
    page = tiny.run.path("report.html").read_text()
    for verdict in ways_verdicts(panel):
        assert verdict.replace("'", "&#39;") in page
    assert (tiny.run.path("figures") / "ways-1-above-the-tap.svg").is_file()
    assert {*read_json(tiny.run.path("summary.json"))["ways"]["ways"]} == set(NAMES)
