"""The caveat names the worst fit."""

from dataclasses import replace

from featdiff.analyses.quality.text import rows_of, worst_fit
from featdiff.run.plan import Plan
from featdiff.run.results import HeldOutFit

GOOD = HeldOutFit({"base": 0.9, "rl": 0.8}, 12.0, 0.1, 1000, {"base": 0.95, "rl": 0.92}, {"base": 0.9, "rl": 0.9})
POOR = replace(GOOD, ce_recovered={"base": 0.95, "rl": 0.5})


def test_a_fit_too_poor_for_causal_claims_is_named() -> None:
    said = worst_fit([("joint", "held-out corpus", GOOD)])
    assert "up to 20.0 %" in said and "at least 92.0 %" in said and "too little" not in said
    said = worst_fit([("pair", "prompts", GOOD), ("joint", "held-out corpus", POOR)])
    assert "at least 50.0 % of the cross-entropy (rl in joint, held-out corpus), too little for causal claims" in said


def test_what_was_not_measured_is_no_number() -> None:
    unknown = replace(GOOD, ce_recovered={"base": None, "rl": None})
    for fit in (unknown, replace(GOOD, ce_recovered=None)):
        assert "was not measured" in worst_fit([("joint", "held-out corpus", fit)])


def test_every_lineup_has_a_row_for_each_text_that_it_was_measured_on(tiny: Plan) -> None:
    found = {(name, text) for name, text, _ in rows_of(tiny)}
    assert found == {(name, "held-out corpus") for name in tiny.crosscoders} | {
        (name, "evaluation prompts") for name in ("joint", "base-rl")
    }
