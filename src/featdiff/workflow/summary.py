"""`summary.json`: the headline numbers of a run under stable keys, from whatever stages exist."""

from pathlib import Path

from featdiff.files import Record, read_json
from featdiff.run.plan import Plan

TRAJECTORY = (
    "alignment",
    "checkpoints",
    "overlap",
    "noise_floor",
    "chance",
    "seeds",
    "floors",
    "between_seeds",
    "relative",
    "counted",
)
CHOICE = (
    "tasks",
    "per_task",
    "chosen",
    "rule",
    "score",
    "stability",
    "by_rule",
    "without_task",
    "elsewhere",
)


def summary(plan: Plan) -> Record:
    """Accuracy, quality, tails, dynamics, selection and effects; a part whose stage has not been made is empty.

    Where a lineup has several seeds, `stability` says how its counts vary. Quality is that of the first seeds.
    """
    selection = _read(plan.run.path("selection", "selection.json"))
    effects = _read(plan.run.path("interventions", "effects.json"))
    return {
        "models": list(plan.models),
        "accuracy": _read(plan.run.path("evaluation", "accuracy.json")),
        "quality": {name: _quality(plan, name) for name in plan.lineups if _measured(plan, name)},
        "tails": {name: tails for name in plan.crosscoders if (tails := _tails(plan, name))},
        **({"stability": stability} if (stability := _stability(plan)) else {}),
        "drift": _drift(plan),
        **({"equal_drift": equal} if (equal := _read(plan.run.path("drift", "drift.json")).get("equal")) else {}),
        "dynamics": {name: found for name in plan.tuned if (found := _dynamics(plan, name))},
        "selection": {key: selection[key] for key in CHOICE if key in selection},
        "effects": effects.get("effects", []),
        **({"claims": effects["claims"]} if "claims" in effects else {}),
        **({"side_effects": effects["side_effects"]} if "side_effects" in effects else {}),
        **({"ways": ways} if (ways := _ways(plan)) else {}),
        **({"sensitivity": found} if (found := _sensitivity(plan)) else {}),
    }


def _measured(plan: Plan, name: str) -> bool:
    return plan.run.path("crosscoders", name, "quality.json").is_file()


def _quality(plan: Plan, name: str) -> Record:
    held_out = _read(plan.run.path("crosscoders", name, "quality.json"))
    prompts = _read(plan.run.path("quality", f"{name}.json"))
    return held_out | ({"evaluation_prompts": prompts} if prompts else {})


def _tails(plan: Plan, name: str) -> Record:
    return _read(plan.run.path("attribution", f"{name}.json")).get("tails", {})


def _dynamics(plan: Plan, name: str) -> Record:
    found = _read(plan.run.path("dynamics", f"{name}.json"))
    kept = {key: found[key] for key in (*TRAJECTORY, "missing") if key in found}
    by_alignment: dict[str, Record] = found.get("by_alignment", {})
    short = {alignment: {key: one[key] for key in TRAJECTORY} for alignment, one in by_alignment.items()}
    return kept | ({"by_alignment": short} if short else {})


def _stability(plan: Plan) -> Record:
    """Seeds, tails under each, and how many features are found again, of every lineup with several seeds."""
    found = {name: record for name in plan.lineups if (record := stability_record(plan, name)) is not None}
    return {name: record | {"variance_explained": _fits(plan, name)} for name, record in found.items()}


def stability_record(plan: Plan, lineup: str) -> Record | None:
    """What the stage `stability` found of one lineup; None where it has one seed."""
    return _read(plan.run.path("stability", f"{lineup}.json")) or None if len(plan.seeds[lineup]) > 1 else None


def _fits(plan: Plan, lineup: str) -> Record:
    """Variance explained of every model, under every seed."""
    fits = [_read(plan.run.path("crosscoders", name, "quality.json")) for name in plan.seeds[lineup]]
    return {
        model: [fit["variance_explained"][model] for fit in fits if fit] for model in plan.crosscoders[lineup].models
    }


def _sensitivity(plan: Plan) -> Record:
    """Every choice at equal L0 and at equal variance explained; single crosscoders are left out."""
    found = _read(plan.run.path("sensitivity", "sensitivity.json"))
    return {key: value for key, value in found.items() if key != "points"}


def _drift(plan: Plan) -> Record:
    """By tuned model, the rows of its checkpoints and interpolations by name."""
    rows = _read(plan.run.path("drift", "drift.json")).get("rows", [])
    found: dict[str, Record] = {}
    for row in rows:
        kept = {key: row[key] for key in ("kind", "alpha", "kl_task", "kl_neutral", "tails")}
        kept |= {"weights": row["weights"]["all"], "activations": max(row["activations"])}
        kept |= {"crossed": row["crossed"]} if row["crossed"] else {}
        found.setdefault(row["tuned"], {})[row["name"]] = kept
    return found


def _ways(plan: Plan) -> Record:
    """The ways to change the base by name, and the overlaps of the neurons that they move."""
    found = _read(plan.run.path("ways", "ways.json"))
    if not found:
        return {}
    kept = ("title", "reliability", "generalization", "side_effects", "answer_format")
    overlap = [{key: one[key] for key in ("where", "ways", "size", "jaccard", "chance")} for one in found["overlap"]]
    by_name = {one["name"]: {key: one[key] for key in kept} for one in found["ways"]}
    return {"ways": by_name, "overlap": overlap} | ({"note": found["note"]} if "note" in found else {})


def _read(path: Path) -> Record:
    return read_json(path) if path.is_file() else {}
