"""Cards of features: the token that excites is marked, and no text can break out of the page."""

from pathlib import Path

from featdiff.analyses.feature_cards.result import Context, FeatureCard, FeatureCards
from featdiff.analyses.feature_cards.text import report_section
from featdiff.report.page import Heading, write_report

CARD = FeatureCard(
    feature=12,
    why=("tail of rl", "selected"),
    density=0.0123,
    owner="rl",
    mas={"base": 0.01, "sft": 0.04, "rl": 0.95},
    cosine_to_base={"base": 1.0, "sft": 0.5, "rl": None},
    nu_error={"base": 0.02, "sft": None, "rl": 1.0},
    nu_reconstruction={"base": 0.1, "sft": 0.2, "rl": 1.0},
    nearest={"base": (("<b>", 3.25),), "sft": (), "rl": ((" sum", 5.0), ("&", 4.0))},
    examples={
        "joint": (Context(2.5, (5, 6, 7, 8), ("a <i>", " =", " 7", "\n"), 1, 9),),
        "base": (),
        "sft": (),
        "rl": (),
    },
)

CARDS = FeatureCards(("base", "sft", "rl"), 1000, (CARD,))


def section(page: str) -> str:
    return page[page.index('<section id="features">') : page.index('<section id="limits">')]


def test_a_context_is_parted_at_its_token() -> None:
    context = CARD.examples["joint"][0]
    assert (context.before, context.token, context.after) == ("a <i>", " =", " 7\n")


def test_a_card_shows_the_evidence_escaped(study: Heading, tmp_path: Path) -> None:
    found = section(write_report(study, tmp_path, [report_section({"joint": CARDS})]).read_text())
    assert "a &lt;i&gt;<mark> =</mark> 7" in found and "<i>" not in found and "<b>" not in found
    assert "<strong>joint 12</strong> · tail of rl, selected · fires on 1.2 % of tokens" in found
    assert "<q>&lt;b&gt;</q> 3.2" in found or "<q>&lt;b&gt;</q> 3.3" in found
    assert "0.95" in found and "nu_eps (from rl)" in found and "driven by sft: no place in the text" in found


def test_a_study_without_such_features_says_so(study: Heading, tmp_path: Path) -> None:
    assert "no features to show one by one" in section(write_report(study, tmp_path, [report_section({})]).read_text())
