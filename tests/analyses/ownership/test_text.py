"""What is shown and said of owners: every tuned model, its tail before and after scaling, and BatchTopK beside it."""

import json
from dataclasses import replace

from made_up_ownership import PAIR, made_up
from tiny_study import changed

from featdiff.analyses.ownership.result import ModelOwnership
from featdiff.analyses.ownership.text import Shown, caveats, findings, report_section, section_of, tail_sentence
from featdiff.run.plan import Plan
from featdiff.workflow.runner import run_study

SHOWN = Shown({"base-rl": made_up()}, ("base-rl",), {}, {"base-rl": "L1, beta 2"}, PAIR, l1=2.0, seeds=1)


def with_rl(rl: ModelOwnership) -> Shown:
    found = made_up()
    return replace(SHOWN, found={"base-rl": replace(found, of=found.of | {"rl": rl})})


def test_the_headline_names_the_tail_of_each_tuned_model_in_its_pair() -> None:
    (sentence,) = findings(SHOWN)
    assert "more than 0.8" in sentence and "5 of 6 for rl" in sentence
    three = replace(
        made_up(), models=("base", "sft", "rl"), of=dict.fromkeys(("base", "sft", "rl"), made_up().of["rl"])
    )
    assert list(findings(replace(SHOWN, found={"base-rl": three}))) == []  # no pair


def test_the_caveat_says_what_latent_scaling_leaves_and_is_silent_without_a_penalty() -> None:
    (shrinkage, seeds) = caveats(SHOWN)
    assert "below 1 " in shrinkage and "leaves 2 of 5 features in the tails above 0.8" in shrinkage
    assert seeds.startswith("1 crosscoder seed and") and "not measured" in seeds
    assert len(list(caveats(replace(SHOWN, l1=None)))) == 1
    rl = made_up().of["rl"]
    empty = replace(rl, scaled=tuple(replace(tail, before=0, absent=0) for tail in rl.scaled))
    assert "found no tail to test" in next(caveats(with_rl(empty)))
    moved = replace(rl, specificity=replace(rl.specificity, tails_l2={"0.8": 3, "0.9": 2}))
    assert "5 by L1 but 3 by L2 above 0.8 for rl in base-rl" in list(caveats(with_rl(moved)))[1]


def test_the_sentence_accounts_for_the_whole_tail() -> None:
    said = tail_sentence(made_up(), "base-rl", "rl")
    for part in ("5 features above 0.8", "2 absent", "1 only shrunk", "1 rebuilt", "1 too rare", "75 %"):
        assert part in said


def test_a_tail_of_which_nothing_was_measured_has_no_figure() -> None:
    rl = made_up().of["rl"]
    assert rl.nu
    nothing = with_rl(replace(rl, nu=replace(rl.nu, beyond=(0,) * 30)))
    assert [picture.section for picture in report_section(SHOWN).figures] == ["NRN", "scaling"]
    assert [picture.section for picture in report_section(nothing).figures] == ["NRN"]


def test_the_numbers_of_figures_hold_no_nan_where_a_tail_is_empty() -> None:
    shown = replace(SHOWN, found={"base-rl": made_up(tails=(0.8, 0.995))})
    numbers = json.loads(json.dumps(report_section(shown).figures[1].numbers, allow_nan=False))
    assert [tail["random_absent"] for tail in numbers["tails"]] == [0.75, None]


def test_a_study_without_cuts_shows_histograms_only() -> None:
    shown = replace(SHOWN, found={"base-rl": made_up(tails=())})
    section = report_section(shown)
    assert [picture.section for picture in section.figures] == ["NRN"] and shown.tails == [] == section.findings


def test_the_crosscoders_of_the_paper_are_shown(tiny: Plan) -> None:
    section = section_of(tiny)
    assert section is not None
    shown = section.values["shown"]
    assert isinstance(shown, Shown)
    assert shown.rows == shown.tails == [("base-rl", "rl"), ("joint", "sft"), ("joint", "rl")]
    assert shown.peers == {}  # the joint crosscoder is itself BatchTopK, the pair has no peer
    assert shown.l1 == 0.2  # of the one ReLU crosscoder


def test_a_batchtopk_crosscoder_over_the_same_models_stands_beside(fresh: Plan) -> None:
    lineups = {
        "joint": {"models": ["base", "rl"], "sparsity": {"kind": "relu", "weight": 0.2}},
        "topk": {"models": ["base", "rl"], "features": 48},
    }
    plan = Plan(changed(fresh.study, crosscoder__lineups=lineups, evaluation__tasks=[]))
    assert section_of(plan) is None  # nothing was made yet
    run_study(plan.study)
    section = section_of(plan)
    assert section is not None
    shown = section.values["shown"]
    assert isinstance(shown, Shown) and shown.peers == {"joint": "topk"}
    assert shown.tails == [("joint", "rl"), ("topk", "rl")] and shown.found["topk"].features == 48
    page = plan.run.path("report.html").read_text()
    assert f"<small>of {shown.found['topk'].alive} alive, topk</small>" in page
