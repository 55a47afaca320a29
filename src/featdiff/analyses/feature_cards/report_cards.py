"""The cards of the report: evidence for single features, from the stage `examples`."""

from featdiff.analyses.feature_cards.result import Context, FeatureCard
from featdiff.files import Record, read_json
from featdiff.run.plan import Plan

SCORES = ("density", "owner", "mas", "cosine_to_base", "nu_error", "nu_reconstruction")


def feature_cards(plan: Plan) -> list[FeatureCard]:
    """Cards of all features that are shown, crosscoder by crosscoder; none where the stage has not been made."""
    paths = [(name, plan.run.path("examples", f"{name}.json")) for name in plan.shown]
    return [_card(name, record) for name, path in paths if path.is_file() for record in read_json(path)["features"]]


def _card(lineup: str, record: Record) -> FeatureCard:
    return FeatureCard(
        lineup=lineup,
        feature=record["feature"],
        why=record["why"],
        contexts={
            reading: [Context(one["value"], one["pieces"], one["position"]) for one in rows]
            for reading, rows in record["examples"].items()
        },
        nearest={model: [(token, height) for token, height in rows] for model, rows in record["nearest"].items()},
        **{key: record[key] for key in SCORES},
    )
