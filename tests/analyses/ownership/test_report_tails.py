"""Tails of the report: every tuned model of the crosscoders shown, beside BatchTopK over the same models."""

from tiny_study import changed, summary

from featdiff.analyses.ownership.report_tails import tail_panels
from featdiff.files import read_json
from featdiff.report.assemble import report_data
from featdiff.run.plan import Plan
from featdiff.workflow.runner import run_study


def test_panels_are_those_of_the_histograms(tiny: Plan) -> None:
    data = report_data(tiny, summary(tiny))
    assert [(panel.lineup, panel.model) for panel in data.tails] == [
        (panel.lineup, panel.model) for panel in data.specificity
    ]
    for panel in data.tails:
        tails = read_json(tiny.run.path("attribution", f"{panel.lineup}.json"))["tails"][panel.model]
        assert {f"{tail.cut:g}": tail.absent for tail in panel.tails}.items() <= tails["scaled"].items()
        assert panel.peer is None  # the joint crosscoder is itself BatchTopK, the pair has no peer


def test_a_batchtopk_crosscoder_over_the_same_models_stands_beside(fresh: Plan) -> None:
    lineups = {
        "joint": {"models": ["base", "rl"], "sparsity": {"kind": "relu", "weight": 0.2}},
        "topk": {"models": ["base", "rl"], "features": 48},
    }
    plan = Plan(changed(fresh.study, crosscoder__lineups=lineups, evaluation__tasks=[]))
    run_study(plan.study)
    panels = tail_panels(plan, {"joint": "L1"})
    assert [(panel.lineup, panel.sparsity) for panel in panels] == [("joint", "L1"), ("topk", "BatchTopK")]
    peer, tails = panels[0].peer, read_json(plan.run.path("attribution", "topk.json"))["tails"]["rl"]
    assert peer and (peer.lineup, peer.features, peer.alive) == ("topk", 48, tails["alive"])
    assert peer.tails == {cut: tails[cut] for cut in ("0.8", "0.9")} and panels[1].peer is None
    assert "topk</small>" in plan.run.path("report.html").read_text()


def test_a_run_without_the_stage_has_no_panels(fresh: Plan) -> None:
    assert tail_panels(fresh, {"joint": "L1"}) == []
