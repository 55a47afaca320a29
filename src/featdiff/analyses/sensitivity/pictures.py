"""The figures of the sensitivity analysis."""

from collections.abc import Iterator
from dataclasses import asdict

from featdiff.analyses.sensitivity.figures import choice_plot, tail_curves
from featdiff.analyses.sensitivity.result import OWN, QuantityRow, SensitivityPanel
from featdiff.analyses.sensitivity.text import WRITTEN
from featdiff.presentation.picture import Picture, file_name
from featdiff.presentation.words import listing

SCALES = {"share": 100.0, "similarity": 1.0, "effect": 100.0}
AXES = {
    "share": "alive features, %",
    "similarity": "likeness to the study's own crosscoder",
    "effect": "points beyond matched random features",
}


def sensitivity_pictures(panel: SensitivityPanel | None) -> Iterator[Picture]:
    """Tails against sparsity, one figure for each tuned model; then similarities, and effects on held-out items."""
    if panel is None:
        return
    tails = panel.points[0].tails
    for position, model in enumerate(list(tails)[1:]):
        cut = min(tails[model], key=float)
        yield _curves(panel, position, model, cut)
    shown = [one for one in panel.quantities if one.kind == "similarity" or one.key.endswith("held_out")]
    for position, one in enumerate(shown):
        yield _choices(panel, position, one)


def _curves(panel: SensitivityPanel, position: int, model: str, cut: str) -> Picture:
    own = [point for point in panel.points if point.strength == 1 and point.alive]
    parts = [f"{point.choice} {point.tails[model][cut]} of {point.alive} at L0 {point.l0:.3g}" for point in own]
    return Picture(
        file_name("tail-curve", position, model),
        "sensitivity",
        tail_curves(panel, model, cut),
        f"Tail of {model} against sparsity",
        f"Alive features of {model} above {cut}, each choice at its own strength 1: {', '.join(parts)}.",
        {"cut": cut, "points": [asdict(point) for point in panel.points]},
    )


def _choices(panel: SensitivityPanel, position: int, one: QuantityRow) -> Picture:
    write = WRITTEN[one.kind]
    cells = {row.label: row.at["l0"][one.key] for row in panel.choices if one.key in row.at["l0"]}
    named = [f"{label} {write(cell.value)}" for label, cell in cells.items()]
    band = [row.label for row in panel.choices if row.kind in (OWN if one.kind != "similarity" else ("seed",))]
    return Picture(
        file_name("choices", position, one.label),
        "sensitivity",
        choice_plot(panel, one, band, AXES[one.kind], SCALES[one.kind]),
        one.label,
        f"{one.label}, at equal L0: {', '.join(named)}. The band spans {listing(band)}.",
        {
            row.label: {base: asdict(found[one.key]) for base, found in row.at.items() if one.key in found}
            for row in panel.choices
        },
    )
