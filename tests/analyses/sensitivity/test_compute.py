"""The sensitivity analysis of the tiny study: a curve for each choice, read where it is comparable; and resumed."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_study import changed, contents

from featdiff.analyses.sensitivity.compute import sensitivity
from featdiff.analyses.sensitivity.variants import group_plan, groups_of
from featdiff.attribution.matching import matched_jaccard
from featdiff.attribution.stability import match_scored
from featdiff.crosscoder import Crosscoder
from featdiff.files import read_json
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
def record(varied: Plan) -> dict[str, Any]:
    return read_json(varied.run.path("sensitivity", "sensitivity.json"))


def test_every_choice_has_a_curve_and_a_verdict_and_seeds_have_none(record: dict[str, Any]) -> None:
    assert [one["label"] for one in record["choices"]] == LABELS
    assert [(one["choice"], one["strength"]) for one in record["points"]] == [
        (label, strength) for label in LABELS[:-1] for strength in (0.5, 1.0, 2.0)
    ]
    for one in record["choices"]:
        cells = [cell for base in ("l0", "variance_explained") for cell in one[base].values()]
        own = one["kind"] in ("reference", "seed")
        assert all((cell["verdict"] is None) == own for cell in cells)


def test_the_study_is_like_itself_and_is_compared_at_its_own_l0(varied: Plan, record: dict[str, Any]) -> None:
    reference, point = record["choices"][0], record["points"][1]
    assert point["choice"] == "reference" and point["strength"] == 1
    assert record["at"]["l0"] == point["l0"]
    for base in ("l0", "variance_explained"):
        cells = reference[base]
        assert cells["jaccard"]["value"] == pytest.approx(1) and cells["rbo"]["value"] == pytest.approx(1)
        assert cells["jaccard"]["chance"] < 1
        for cut in ("0.8", "0.9"):
            tails = point["tails"]["rl"]
            assert cells[f"tail rl {cut}"]["value"] == pytest.approx(tails[cut] / tails["alive"])
        claim = point["effects"]["rl"]["held_out"]
        beyond = claim["change"] - claim["controls"]["activity-matched"]["mean"]
        assert cells["effect rl held_out"]["value"] == pytest.approx(beyond)
        assert claim["controls"]["activity-matched"]["draws"] == 3


def test_a_choice_is_read_between_its_neighbours_in_log_l0(record: dict[str, Any]) -> None:
    x = record["at"]["l0"]
    enclosed = 0
    for one in record["choices"][1:4]:
        points = [point for point in record["points"] if point["choice"] == one["label"]]
        shares = [point["tails"]["rl"]["0.8"] / point["tails"]["rl"]["alive"] for point in points]
        steps = [math.log(point["l0"] / x) for point in points]
        if min(map(abs, steps)) > math.log(1.02) and steps[0] > 0 > steps[-1]:
            weak = max(at for at, step in enumerate(steps) if step > 0)
            share = steps[weak] / (steps[weak] - steps[weak + 1])
            expected = (1 - share) * shares[weak] + share * shares[weak + 1]
            assert one["l0"]["tail rl 0.8"]["value"] == pytest.approx(expected)
            enclosed += 1
    assert enclosed


def test_jaccard_is_that_of_the_matched_final_sets(varied: Plan, record: dict[str, Any]) -> None:
    plan = group_plan(varied, groups_of(varied)[1], varied.run.path("sensitivity"))
    pairs = match_scored(scored(varied, "joint"), scored(plan, "seed-1-x2"), varied.study.stability.acceptance)
    chosen = {
        name: read_json(varied.run.path("sensitivity", "choices", f"{name}.json")) for name in ("joint", "seed-1-x2")
    }
    sets = [
        Crosscoder.load(where.run.path("crosscoders", name)).W_dec.new_tensor(one["chosen"]).long()
        for where, (name, one) in zip((varied, plan), chosen.items(), strict=True)
    ]
    found = chosen["seed-1-x2"]["jaccard"]["found"]
    assert found == pytest.approx(matched_jaccard(pairs, *sets))


def test_another_norm_changes_tails_and_touches_nothing_else(varied: Plan, record: dict[str, Any]) -> None:
    cells = record["choices"][-1]["l0"]
    assert set(cells) == {
        f"{kind} {m} {cut}" for kind in ("tail", "absent") for m in ("sft", "rl") for cut in ("0.8", "0.9")
    }
    attribution = attribution_of(varied, "joint")
    tail = (attribution.mas_l2[attribution.alive, 2] > 0.8).double().mean()
    assert cells["tail rl 0.8"]["value"] == pytest.approx(float(tail))


def test_effects_are_measured_where_they_are_read(record: dict[str, Any]) -> None:
    by = {(one["choice"], one["strength"]): bool(one["effects"]) for one in record["points"]}
    assert all(by["reference", strength] for strength in (0.5, 1.0, 2.0))
    for one in record["choices"][1:-1]:
        edited = [strength for strength in (0.5, 1.0, 2.0) if by[one["label"], strength]]
        reached = [one[base]["jaccard"]["value"] is not None for base in ("l0", "variance_explained")]
        assert any(reached) == bool(edited)


def test_a_killed_attempt_is_gone_on_with_and_ends_with_the_same_bytes(varied: Plan, tmp_path: Path) -> None:
    wanted, folder = contents(varied.run.path("sensitivity")), tmp_path / "again"
    shutil.copytree(varied.run.path("sensitivity"), folder)
    trained = folder / "crosscoders" / "layer-own-1" / "seed-1-x1" / "crosscoder.safetensors"
    before = trained.stat().st_mtime_ns
    (folder / "sensitivity.json").unlink()
    (folder / "choices" / "layer-3-x1.json").unlink()
    shutil.rmtree(folder / "effects" / "joint")
    shutil.rmtree(folder / "attribution" / "norm_p-2")
    sensitivity(varied, folder)
    assert contents(folder) == wanted and trained.stat().st_mtime_ns == before


def test_layers_that_cannot_be_are_refused_before_anything_is_trained(varied: Plan, tmp_path: Path) -> None:
    for layers, message in (([2], "2 is the study's own layer"), ([5], "5, but the base has 4 blocks; choose 1..4")):
        plan = Plan(changed(varied.study, sensitivity={**ANALYSIS, "layers": layers}))
        with pytest.raises(ValueError, match=message):
            sensitivity(plan, tmp_path)
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
