"""What `train` records: undefined shares are None, and files give back what was saved."""

from pathlib import Path

import torch
from tiny_study import changed

from featdiff.crosscoder.metrics import Quality, SplicedLosses
from featdiff.files import load, save
from featdiff.run.plan import Plan
from featdiff.run.results import HeldOutFit, fit_of, stream_of

MEASURED = Quality(("base", "rl"), torch.tensor([0.5, float("nan")]), 3.0, 0.25, torch.ones(4), torch.ones(2, 3), 10)


def test_an_undefined_share_is_none(tmp_path: Path) -> None:
    costly, free = SplicedLosses(1, 1.0, 1.5, 3.0, 0.5, 2.0), SplicedLosses(1, 1.0, 1.0, 1.0, 0.0, 0.0)
    found = HeldOutFit.of(MEASURED, {"base": costly, "rl": free})
    assert found.variance_explained == {"base": 0.5, "rl": None}
    assert found.ce_recovered == {"base": 0.75, "rl": None} == found.kl_recovered
    save(found, tmp_path / "fit.json")
    assert load(HeldOutFit, tmp_path / "fit.json") == found


def test_only_crosscoders_that_stand_for_themselves_are_spliced(tiny: Plan) -> None:
    for name in tiny.crosscoders:
        assert (fit_of(tiny, name).ce_recovered is not None) == (name in tiny.lineups)
    assert stream_of(Plan(changed(tiny.study))).layers == tiny.study.lineup.layer
