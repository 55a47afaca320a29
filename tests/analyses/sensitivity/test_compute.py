"""The sensitivity analysis of the tiny study: a curve for each choice, read where it is comparable; and resumed."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from tiny_study import changed, contents

from featdiff.analyses import sensitivity
from featdiff.analyses.sensitivity.result import SelectedFeatures, Sensitivity
from featdiff.analyses.sensitivity.variants import group_plan, groups_of
from featdiff.attribution.matching import matched_jaccard
from featdiff.attribution.stability import match_scored
from featdiff.files import load, read_json
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of, scored
from featdiff.workflow.registry import stages_of
from featdiff.workflow.runner import run_verb

ANALYSIS = {
    "strengths": [0.5, 1.0, 2.0],
    "seeds": [1, 2],
    "sparsity": [{"kind": "relu", "weight": 0.2}],
    "layers": [3],
    "norm_p": [2],
    "controls": 3,
    "items": 30,
    "tokens": 500,
}
LABELS = ["reference", "seed 1", "seed 2", "sparsity relu, weight 0.2", "layer 3", "L2 norm"]


@pytest.fixture(scope="module")
def varied(tiny: Plan, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The tiny study with an analysis, after it; not to be changed."""
    runs = tmp_path_factory.mktemp("varied")
    plan = Plan(changed(tiny.study, sensitivity=ANALYSIS, runs=str(runs)))
    shutil.copytree(tiny.run.folder, plan.run.folder)
    run_verb(plan.study, "sensitivity")
    return plan


@pytest.fixture
def found(varied: Plan) -> Sensitivity:
    return load(Sensitivity, varied.run.path("sensitivity", "sensitivity.json"))


def test_every_choice_has_a_curve_and_a_verdict_and_seeds_have_none(found: Sensitivity) -> None:
    assert [one.label for one in found.choices] == LABELS
    assert [(one.choice, one.strength) for one in found.points] == [
        (label, strength) for label in LABELS[:-1] for strength in (0.5, 1.0, 2.0)
    ]
    for one in found.choices:
        cells = [cell for base in one.at.values() for cell in base.values()]
        own = one.kind in ("reference", "seed")
        assert all((cell.verdict is None) == own for cell in cells)


def test_the_study_is_like_itself_and_is_compared_at_its_own_l0(found: Sensitivity) -> None:
    reference, point = found.choices[0], found.points[1]
    assert point.choice == "reference" and point.strength == 1
    assert found.at["l0"] == point.l0
    for cells in reference.at.values():
        assert cells["jaccard"].value == pytest.approx(1) and cells["rbo"].value == pytest.approx(1)
        assert cells["jaccard"].chance is not None and cells["jaccard"].chance < 1
        for cut, number in point.tails["rl"].above.items():
            assert cells[f"tail rl {cut}"].value == pytest.approx(number / point.alive)
        effect = point.effects["rl"].held_out
        control = effect.controls["activity-matched"]
        assert effect.change is not None and control.mean is not None and control.draws == 3
        assert cells["effect rl held_out"].value == pytest.approx(effect.change - control.mean)


def test_tails_of_a_crosscoder_that_is_trained_are_those_of_its_scores(varied: Plan, found: Sensitivity) -> None:
    plan = group_plan(varied, groups_of(varied)[1], varied.run.path("sensitivity"))
    point = next(one for one in found.points if (one.choice, one.strength) == ("seed 1", 2.0))
    tails = attribution_of(plan, "seed-1-x2").tails("rl", (0.8, 0.9))
    assert point.tails["rl"].above | {"alive": point.alive} == tails
    assert all(point.tails["rl"].absent[cut] <= number for cut, number in point.tails["rl"].above.items())


def test_a_choice_is_read_between_its_neighbours_in_log_l0(found: Sensitivity) -> None:
    x = found.at["l0"]
    enclosed = 0
    for one in found.choices[1:4]:
        points = [point for point in found.points if point.choice == one.label]
        shares = [point.tails["rl"].above["0.8"] / point.alive for point in points]
        steps = [math.log(point.l0 / x) for point in points]
        if min(map(abs, steps)) > math.log(1.02) and steps[0] > 0 > steps[-1]:
            weak = max(at for at, step in enumerate(steps) if step > 0)
            share = steps[weak] / (steps[weak] - steps[weak + 1])
            expected = (1 - share) * shares[weak] + share * shares[weak + 1]
            assert one.l0["tail rl 0.8"].value == pytest.approx(expected)
            enclosed += 1
    assert enclosed


def test_jaccard_is_that_of_the_matched_final_sets(varied: Plan) -> None:
    plan = group_plan(varied, groups_of(varied)[1], varied.run.path("sensitivity"))
    pairs = match_scored(scored(varied, "joint"), scored(plan, "seed-1-x2"), varied.study.stability.acceptance)
    own, other = (
        load(SelectedFeatures, varied.run.path("sensitivity", "choices", f"{name}.json"))
        for name in ("joint", "seed-1-x2")
    )
    expected = matched_jaccard(pairs, torch.tensor(own.chosen), torch.tensor(other.chosen))
    assert other.jaccard is not None and other.jaccard.found == pytest.approx(expected)


def test_another_norm_changes_tails_and_touches_nothing_else(varied: Plan, found: Sensitivity) -> None:
    cells = found.choices[-1].l0
    assert set(cells) == {
        f"{kind} {m} {cut}" for kind in ("tail", "absent") for m in ("sft", "rl") for cut in ("0.8", "0.9")
    }
    attribution = attribution_of(varied, "joint")
    tail = (attribution.mas_l2[attribution.alive, 2] > 0.8).double().mean()
    assert cells["tail rl 0.8"].value == pytest.approx(float(tail))


def test_effects_are_measured_where_they_are_read(found: Sensitivity) -> None:
    by = {(one.choice, one.strength): bool(one.effects) for one in found.points}
    assert all(by["reference", strength] for strength in (0.5, 1.0, 2.0))
    for one in found.choices[1:-1]:
        edited = [strength for strength in (0.5, 1.0, 2.0) if by[one.label, strength]]
        reached = [cells["jaccard"].value is not None for cells in one.at.values()]
        assert any(reached) == bool(edited)


def test_a_killed_attempt_is_gone_on_with_and_ends_with_the_same_bytes(varied: Plan, tmp_path: Path) -> None:
    wanted, folder = contents(varied.run.path("sensitivity")), tmp_path / "again"
    shutil.copytree(varied.run.path("sensitivity"), folder)
    trained = folder / "crosscoders" / "layer-own-1" / "seed-1-x1" / "crosscoder.safetensors"
    before = trained.stat().st_mtime_ns
    (folder / "sensitivity.json").unlink()
    (folder / "choices" / "layer-3-x1.json").unlink()
    shutil.rmtree(folder / "effects" / "joint")
    (folder / "attribution" / "norm_p-2.json").unlink()
    sensitivity.run(varied, folder)
    assert contents(folder) == wanted and trained.stat().st_mtime_ns == before


def test_layers_that_cannot_be_are_refused_before_anything_is_trained(varied: Plan, tmp_path: Path) -> None:
    for layers, message in (([2], "2 is the study's own layer"), ([5], "5, but the base has 4 blocks; choose 1..4")):
        plan = Plan(changed(varied.study, sensitivity={**ANALYSIS, "layers": layers}))
        with pytest.raises(ValueError, match=message):
            sensitivity.run(plan, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_report_and_the_summary_have_it(varied: Plan) -> None:
    run_verb(varied.study, "report")
    page = varied.run.path("report.html").read_text()
    assert '<section id="sensitivity">' in page and "sparsity relu, weight 0.2" in page
    found = read_json(varied.run.path("summary.json"))["sensitivity"]
    assert [one["label"] for one in found["choices"]] == LABELS and "points" not in found


def test_a_study_that_varies_nothing_has_no_such_stage_and_no_such_section(tiny: Plan) -> None:
    assert "sensitivity" not in [stage.name for stage in stages_of(tiny)]
    assert 'id="sensitivity"' not in tiny.run.path("report.html").read_text()
    assert "sensitivity" not in read_json(tiny.run.path("summary.json"))
    with pytest.raises(ValueError, match=r"the study has no section \[sensitivity\]"):
        run_verb(tiny.study, "sensitivity")
