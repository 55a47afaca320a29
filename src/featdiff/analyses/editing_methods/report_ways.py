"""The ways to change the base for the report, from the stage `ways`."""

from dataclasses import replace

from featdiff.analyses.editing_methods.result import WayOverlap, WayRow, WaySet, WaysPanel
from featdiff.files import Record, read_json
from featdiff.run.plan import Plan


def ways_panel(plan: Plan) -> WaysPanel | None:
    """All rows and overlaps of the run; None where the stage has not been made, or nothing could be compared."""
    path = plan.run.path("ways", "ways.json")
    if not path.is_file() or not (record := read_json(path))["ways"]:
        return None
    return WaysPanel(
        target=record["target"],
        rows=[_row(one, record["target"]) for one in record["ways"]],
        overlaps=[_overlap(one) for one in record["overlap"]],
        choosing_items=record["choosing"]["items"],
        choosing_critical=record["choosing"]["critical"],
    )


def _row(record: Record, target: str) -> WayRow:
    side, form = record["side_effects"], record["answer_format"]
    entropy = side["cross_entropy"] or {"before": None, "after": None}
    return WayRow(
        name=record["name"],
        title=record["title"],
        edit=record["edit"],
        reference=record["name"] == target,
        control=record["control"] or "",
        tried=record["tried"],
        reliability=_sets(record["reliability"]),
        generalization=_sets(record["generalization"] or {}),
        kl=side["kl"],
        control_kl=side["control_kl"],
        cross_entropy=(entropy["before"], entropy["after"]),
        tokens=side["tokens"],
        in_form=(form["before"], form["after"]),
        histogram_shift=record["reliability"]["histogram_shift"],
    )


def _sets(record: Record) -> dict[str, WaySet]:
    return {name: _set(record[name]) for name in ("critical", "mirror", "all") if name in record}


def _set(record: Record) -> WaySet:
    plain = WaySet(record["n"], record["change"], record["interval"])
    controls = list(record.get("controls", {}).values())
    return replace(plain, **_beside(record, controls[0])) if controls else plain


def _beside(record: Record, control: Record) -> Record:
    """What random edits do there, and what that makes of the change."""
    found: Record = {"draws": control["draws"], "control": control["mean"], "control_interval": control["interval"]}
    found |= {"beyond": record["beyond"]["value"], "beyond_interval": record["beyond"]["interval"]}
    return found | {"p": record["p"], "verdict": record["verdict"]}


def _overlap(record: Record) -> WayOverlap:
    kept = ("where", "ways", "neurons", "size", "jaccard", "p", "halves", "target", "controls")
    chance = record["chance"]
    return WayOverlap(**{key: record[key] for key in kept}, chance=chance["mean"], chance_high=chance["high"])
