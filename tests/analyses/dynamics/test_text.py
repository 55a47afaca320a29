"""Dynamics on the page: every alignment with what it can show, and why others are missing."""

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

from made_up_dynamics import made_up, of, one_seed

from featdiff.analyses.dynamics.result import Dynamics
from featdiff.analyses.dynamics.text import dynamics_section
from featdiff.attribution.trajectories import Alignment
from featdiff.report.page import Heading, write_report


def page_of(study: Heading, folder: Path, **by_model: Dynamics) -> str:
    """What the page says of dynamics."""
    section = dynamics_section(by_model, ("base", "sft", "rl"))
    page = write_report(study, folder, [section]).read_text(encoding="utf-8")
    return page[page.index('<section id="dynamics">') :].partition("</section>")[0]


def test_the_page_says_of_each_alignment_what_it_can_and_cannot_show(study: Heading, tmp_path: Path) -> None:
    found = of(*(made_up(alignment) for alignment in get_args(Alignment)))
    page = page_of(study, tmp_path, sft=found, rl=found)
    for alignment in get_args(Alignment):
        assert re.search(rf"<h4>[^<]*\({alignment}\)</h4>\n<p>[^<]* cannot[^<]*</p>", page)
        row = re.search(rf'<th scope="row">{alignment}</th><td>rl</td>(.*?)</tr>', page)
        assert row and re.findall(r">([\d.]+)<", row[1])[:5] == ["2", "4", "60.0", "65.0", "10.0"]


def test_missing_alignments_are_named_with_their_reason(study: Heading, tmp_path: Path) -> None:
    page = page_of(study, tmp_path, rl=of(made_up(), missing={"swap": "no crosscoder aligns <base> with rl alone"}))
    assert "swap is missing for rl: no crosscoder aligns &lt;base&gt; with rl alone." in page


def test_without_ranked_features_the_page_says_so(study: Heading, tmp_path: Path) -> None:
    page = page_of(study, tmp_path, rl=of(replace(made_up(), rank_shift=((),))))
    assert "there are no rank shifts to show" in page


def test_a_floor_that_was_not_measured_is_a_caveat_and_a_measured_one_is_none() -> None:
    section = dynamics_section({"rl": of(made_up(), one_seed("swap")), "sft": of(made_up())}, ("base", "sft", "rl"))
    (caveat,) = section.caveats
    assert "of rl" in caveat and "under swap" in caveat and "10.0 %" in caveat
