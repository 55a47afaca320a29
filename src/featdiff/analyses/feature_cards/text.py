"""The cards of single features in the report."""

from featdiff.analyses.feature_cards.result import FeatureCards
from featdiff.files import load
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def section_of(plan: Plan) -> Section:
    """Cards of all features that are shown, crosscoder by crosscoder."""
    places = {name: plan.run.path("examples", f"{name}.json") for name in plan.shown}
    return report_section({name: load(FeatureCards, place) for name, place in places.items() if place.is_file()})


def report_section(found: dict[str, FeatureCards]) -> Section:
    """The cards by name of their crosscoder."""
    return Section(
        anchor="features",
        title="Features one by one",
        template="feature_cards/section.html",
        values={"cards": [(name, card) for name, cards in found.items() for card in cards.features]},
    )
