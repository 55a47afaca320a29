"""Editing methods in a run: chosen on one half, measured on the other, against random edits."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_study import changed

from featdiff.analyses.editing_methods import items_of, run
from featdiff.analyses.editing_methods.result import EditingMethods, Method
from featdiff.analyses.editing_methods.text import verdicts
from featdiff.files import load, read_json, write_json
from featdiff.intervention.editing_methods import method_names
from featdiff.run.evaluation import held_out_parts, outcomes_of
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan
from featdiff.workflow.registry import stages_of
from featdiff.workflow.runner import run_verb

EDITS = ("features", "features_printed", "steering", "neurons")
NAMES = (*EDITS, "sft", "rl")


def found_in(plan: Plan, folder: str = "ways") -> EditingMethods:
    return load(EditingMethods, plan.run.path(folder, "ways.json"))


@pytest.fixture(scope="module")
def found(tiny: Plan) -> EditingMethods:
    return found_in(tiny)


def by_name(found: EditingMethods) -> dict[str, Method]:
    return {one.name: one for one in found.methods}


def test_every_method_has_a_row_and_the_model_whose_behaviour_it_is_comes_last(found: EditingMethods) -> None:
    assert tuple(by_name(found)) == NAMES and found.target == "rl"
    assert [one.edit for one in found.methods] == [True, True, True, True, False, False]


def test_the_summary_keeps_its_keys(tiny: Plan, found: EditingMethods) -> None:
    summary = read_json(tiny.run.path("summary.json"))["ways"]
    assert [*summary] == ["ways", "overlap"] and [*summary["ways"]] == list(NAMES)
    steered = summary["ways"]["steering"]
    assert [*steered] == ["title", "reliability", "generalization", "side_effects", "answer_format"]
    assert [*steered["reliability"]] == ["critical", "mirror", "all", "histogram_shift"]
    keys = ["n", "change", "interval", "flips", "controls", "p", "verdict", "beyond"]
    assert [*steered["reliability"]["critical"]] == keys
    assert [*summary["ways"]["rl"]["reliability"]["critical"]] == keys[:3]
    assert {*summary["overlap"][0]} == {"where", "ways", "size", "jaccard", "chance"}


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


def test_every_edit_is_compared_with_random_edits_and_says_how_its_strength_was_chosen(
    tiny: Plan, found: EditingMethods
) -> None:
    settings, rows = tiny.study.ways, by_name(found)
    for name in EDITS:
        for changes in (rows[name].reliability, rows[name].generalization):
            assert changes is not None
            for one in (changes.critical, changes.mirror, changes.all):
                assert one.compared and one.compared.beyond and one.change is not None
                assert one.compared.control.draws == settings.controls
                assert one.interval[0] <= one.change <= one.interval[1]
                assert one.compared.beyond.value == pytest.approx(one.change - (one.compared.control.mean or 0))
        assert len(rows[name].side_effects.control_kl) == settings.examined
    assert [value for value, *_ in rows["steering"].tried] == list(settings.strengths)
    best = max(rows["steering"].tried, key=lambda one: one[1] - one[2])[0]
    assert rows["steering"].title == f"steering by {best:g} x the mean difference"
    assert rows["features_printed"].tried == () and rows["features_printed"].title == "features set to 3.0"


def test_changes_of_tuned_models_are_those_of_the_evaluation(tiny: Plan, found: EditingMethods) -> None:
    rows = by_name(found)
    assert rows["rl"].reliability.critical.change == 1.0
    assert rows["rl"].reliability.mirror.change == -1.0
    outcomes = outcomes_of(tiny, "numbers")
    for model in ("sft", "rl"):
        changes = rows[model].generalization
        assert changes is not None and changes.all.n == 48 and changes.all.compared is None
        assert changes.all.change == pytest.approx(outcomes.accuracy(model) - outcomes.accuracy("base"))


def test_neurons_moved_by_a_method_overlap_with_themselves_and_lie_above_the_hook_point(found: EditingMethods) -> None:
    above, everywhere = found.overlaps
    assert above.where == "above the tap" and above.methods == NAMES and above.neurons == 2 * 64
    assert everywhere.methods == ("neurons", "sft", "rl") and everywhere.neurons == 4 * 64
    for one in found.overlaps:
        table = torch.tensor(one.jaccard)
        assert torch.equal(table, table.T) and (table.diagonal() == 1).all()
        assert 0 < one.chance.mean < one.chance.high < 1
        assert all(0 <= value <= 1 for value in one.halves)
        assert [len(draws) for draws in one.controls] == [2 if name in EDITS else 0 for name in one.methods]


def test_side_effects_of_the_model_itself_are_its_distance_from_the_base(found: EditingMethods) -> None:
    effects = [one.side_effects for one in found.methods]
    assert all(one.kl and one.kl > 0 and one.tokens > 100 for one in effects)
    assert len({one.cross_entropy.before for one in effects if one.cross_entropy}) == 1
    assert all(0 <= one.reliability.histogram_shift <= 1 for one in found.methods)


def test_shifts_of_neurons_are_kept_for_each_method(tiny: Plan) -> None:
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
    run(own, folder)
    assert (folder / "ways.json").read_bytes() == wanted


def test_where_nothing_was_selected_on_the_choosing_half_nothing_is_compared(own: Plan) -> None:
    path = own.run.path("selection", "selection.json")
    record = read_json(path)
    write_json(path, record | {"without_held_out": record["without_held_out"] | {"chosen": []}})
    own.run.path("new").mkdir()
    run(own, own.run.path("new"))
    found = found_in(own, "new")
    assert found.methods == () and "no features were selected" in found.note
    assert found.summary() == {"ways": {"ways": {}, "overlap": [], "note": found.note}}


def test_a_model_that_is_called_like_an_edit_is_refused() -> None:
    with pytest.raises(ValueError, match="called steering, as one of the ways to edit the base; rename the model"):
        method_names(("steering", "rl"), "rl")


def test_a_study_can_leave_the_comparison_out(tiny: Plan) -> None:
    plan = Plan(changed(tiny.study, ways__compare=False))
    assert "ways" not in [stage.name for stage in stages_of(plan)]
    with pytest.raises(ValueError, match="this study has no stage ways"):
        run_verb(plan.study, "ways")


def test_the_report_shows_it_in_sentences_by_fixed_rules(tiny: Plan, found: EditingMethods) -> None:
    page = tiny.run.path("report.html").read_text()
    for verdict in verdicts(found):
        assert verdict.replace("'", "&#39;") in page
    assert (tiny.run.path("figures") / "ways-1-above-the-tap.svg").is_file()
