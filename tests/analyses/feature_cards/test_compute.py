"""The examples of a run: the right features, the places that a search by hand finds, the text around them."""

import pytest
import torch
from tiny_study import changed

from featdiff.analyses.feature_cards import run as examples
from featdiff.analyses.feature_cards.compute import top_contexts
from featdiff.analyses.feature_cards.result import FeatureCards
from featdiff.analyses.ownership.result import load_scaling
from featdiff.crosscoder import Crosscoder
from featdiff.files import load, read_json
from featdiff.models.loading import load_model, load_tokenizer
from featdiff.models.residual import token_logits
from featdiff.run.held_out import calibration_of, held_out_corpus
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan
from featdiff.run.scored import attribution_of, held_out_statistics


@pytest.fixture
def made(own: Plan) -> tuple[Plan, FeatureCards]:
    """A study whose lowest tail holds features, and the examples of its joint crosscoder."""
    plan = Plan(changed(own.study, attribution__tails=[0.35, 0.8], examples={"tail": 3, "top": 4, "before": 5}))
    folder = own.run.path("new")
    folder.mkdir()
    examples(plan, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["base-rl.json", "joint.json"]
    return plan, load(FeatureCards, folder / "joint.json")


def test_features_are_the_top_of_each_tail_and_those_selected(made: tuple[Plan, FeatureCards]) -> None:
    plan, cards = made
    attribution = attribution_of(plan, "joint")
    chosen = read_json(plan.run.path("selection", "selection.json"))["chosen"]
    wanted: dict[int, tuple[str, ...]] = {}
    for model in ("sft", "rl"):
        for feature in attribution.top(model, 3).tolist():
            if attribution[model][feature] > 0.35:
                wanted[feature] = (*wanted.get(feature, ()), f"tail of {model}")
    for feature in chosen:
        wanted[feature] = (*wanted.get(feature, ()), "selected")
    assert {card.feature: card.why for card in cards.features} == wanted
    assert chosen and any("tail" in why for reasons in wanted.values() for why in reasons)


def test_joint_contexts_are_the_strongest_of_the_held_out_text(made: tuple[Plan, FeatureCards]) -> None:
    """Second road: every token of the text at once."""
    plan, cards = made
    corpus, lineup = held_out_corpus(plan), load_lineup(plan, plan.models)
    values = lineup.residuals(corpus.input_ids.long(), position_ids=corpus.position_ids)
    kept = ~corpus.document_start & (values.norm(dim=-1) <= calibration_of(plan, lineup.names).largest_norm).all(dim=-1)
    crosscoder = Crosscoder.load(plan.run.path("crosscoders", "joint"))
    with torch.no_grad():
        codes = crosscoder.encode(values.flatten(0, 1)) * kept.flatten()[:, None]
    document, ids = corpus.document_start.flatten().cumsum(0), corpus.input_ids.flatten()
    tokenizer = load_tokenizer(plan.paths["base"])
    for card in cards.features:
        code, contexts = codes[:, card.feature], card.examples
        assert contexts.keys() == {"joint", "base", "sft", "rl"}
        strongest = [float(code[document == number].max()) for number in document.unique()]
        wanted = [value for value in sorted(strongest, reverse=True)[:4] if value > 0]
        assert [one.value for one in contexts["joint"]] == pytest.approx(wanted, rel=1e-4)
        for one in (one for some in contexts.values() for one in some):
            begin = one.place - one.position
            span = slice(begin, begin + len(one.token_ids))
            assert list(one.token_ids) == ids[span].tolist() and one.position <= 5
            assert len(set(document[span].tolist())) == 1  # one document
            assert one.token == tokenizer.decode([int(ids[one.place])])
            assert bool(kept.flatten()[one.place])


def test_scores_are_those_of_the_attribution_and_nearest_tokens_those_of_the_model(
    made: tuple[Plan, FeatureCards],
) -> None:
    plan, cards = made
    attribution, scaling, crosscoder = (
        attribution_of(plan, "joint"),
        load_scaling(plan.run.path("attribution"), "joint"),
        Crosscoder.load(plan.run.path("crosscoders", "joint")),
    )
    card = cards.features[0]
    feature, owner = card.feature, card.owner
    assert owner == max(card.mas, key=lambda model: card.mas[model] or 0.0)
    assert card.mas["rl"] == pytest.approx(float(attribution["rl"][feature]))
    assert card.density == pytest.approx(float(attribution.density[feature]))
    nu = scaling.nu_error("base", owner)[feature]
    assert card.nu_error["base"] == (None if nu.isnan() else pytest.approx(float(nu)))
    logits = token_logits(load_model(plan.paths["rl"]), crosscoder.W_dec.detach()[feature, 2][None])[0]
    tokenizer = load_tokenizer(plan.paths["base"])
    assert card.nearest["rl"][0][0] == tokenizer.decode([int(logits.argmax())])
    assert len(card.nearest["rl"]) == 8


def test_fewer_tokens_are_searched_where_the_study_says_so(own: Plan) -> None:
    folder = own.run.path("new")
    folder.mkdir()
    examples(Plan(changed(own.study, examples={"tokens": 100})), folder)
    places = [
        one.place
        for card in load(FeatureCards, folder / "joint.json").features
        for some in card.examples.values()
        for one in some
    ]
    assert places and max(places) < 128  # two rows of 64


def test_a_notebook_finds_the_contexts_of_the_stage(made: tuple[Plan, FeatureCards]) -> None:
    plan, cards = made
    lineup, corpus = load_lineup(plan, plan.models), held_out_corpus(plan)
    found = top_contexts(
        Crosscoder.load(plan.run.path("crosscoders", "joint")),
        lineup,
        [card.feature for card in cards.features],
        corpus,
        lineup.tokenizer,
        held_out_statistics(plan, "joint")["mean"],
        examples=plan.study.examples,
        activations=plan.study.activations,
        calibration=calibration_of(plan, lineup.names),
    )
    assert list(found.contexts) == [card.examples for card in cards.features] and found.tokens == cards.tokens


def test_the_report_has_a_card_for_each(tiny: Plan) -> None:
    shown = [load(FeatureCards, path) for path in tiny.run.path("examples").glob("*.json") if path.stem != "stage"]
    page = tiny.run.path("report.html").read_text()
    assert page.count('class="card"') == sum(len(cards.features) for cards in shown) > 0 and "<mark>" in page
