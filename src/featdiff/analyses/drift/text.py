"""Drift in the summary and in the report: the answers at equal drift, in sentences and by fixed rules."""

from collections.abc import Sequence

from featdiff.analyses.drift.figures import drift_pictures
from featdiff.analyses.drift.result import Drift, EqualDrift, Estimate, ModelDrift, Question, Reading
from featdiff.files import Json, as_json, load
from featdiff.presentation.section import Section
from featdiff.presentation.words import listing, points, points_interval
from featdiff.run.plan import REJECTION, Plan
from featdiff.run.results import SampleCounts


def drift_of(plan: Plan) -> Drift | None:
    """What the stage found; None where it has not been made."""
    path = plan.run.path("drift", "drift.json")
    return load(Drift, path) if path.is_file() else None


def headline_numbers(plan: Plan) -> dict[str, Json]:
    """By tuned model and name, how far each model moved and its tails; and all that was found at equal drift."""
    drift = drift_of(plan)
    found: dict[str, dict[str, Json]] = {}
    for row in drift.rows if drift else ():
        found.setdefault(row.tuned, {})[row.name] = _numbers(row)
    return {"drift": found} | ({"equal_drift": as_json(drift.equal)} if drift else {})


def _numbers(row: ModelDrift) -> Json:
    numbers: dict[str, Json] = {
        "kind": row.kind,
        "alpha": row.alpha,
        "kl_task": row.kl_task,
        "kl_neutral": row.kl_neutral,
        "tails": row.tails,
        "weights": row.weights["all"],
        "activations": max(row.activations),
    }
    return numbers | ({"crossed": row.crossed} if row.crossed else {})


def section_of(plan: Plan) -> Section | None:
    """The section of a run; None where the stage has not been made."""
    if (drift := drift_of(plan)) is None:
        return None
    place = plan.run.path("posttrain", REJECTION, "traces.json")
    samples = load(SampleCounts, place) if REJECTION in drift.controls else None
    return drift_section(drift, plan.models, plan.study.intervention.confidence, samples)


def drift_section(drift: Drift, models: Sequence[str], confidence: float, samples: SampleCounts | None) -> Section:
    """The answers, the models at equal drift, the figure, and how far every model moved.

    `models` are those of the study, for their colours; `samples` is what the control was trained on.
    """
    verdicts = equal_drift_verdicts(drift.equal, drift.least, confidence)
    return Section(
        anchor="drift",
        title="Drift",
        template="drift/section.html",
        values={"drift": drift, "verdicts": verdicts, "confidence": confidence, "samples": samples},
        figures=tuple(drift_pictures(drift, models)),
    )


def equal_drift_verdicts(equal: EqualDrift, least: str, confidence: float) -> list[str]:
    """The answer in one sentence; what was learned there; whether checkpoints agree; what would change the answer."""
    questions = equal.answered("mixed with the base")
    if not questions:
        return ["No crosscoder of the base and each tuned model was trained, so tails at equal drift are not known."]
    kl = equal.model("mixed with the base", least).kl_task
    answers = listing([_answer(question) for question in questions])
    return [
        f"At equal drift (KL {kl:.3g} nats per token on the tasks, that of {least}, reached by mixing with the base), "
        f"{answers}.",
        _learned(equal, questions),
        _checkpoints(equal, questions, least),
        _what_would_change(questions, confidence),
    ]


def _answer(question: Question) -> str:
    said = {"more": "more specific features than", "fewer": "fewer specific features than"}
    if question.is_of_control:
        verb = {"more": "makes", "fewer": "makes"}.get(question.order, "cannot be told apart in this from")
        what = f"training on RL's own right answers ({question.first}) {verb}"
        other = f"training on the teacher's ({question.second})"
    else:
        verb = {"more": "still has", "fewer": "has"}.get(question.order, "cannot be told apart in this from")
        what, other = f"{question.first} {verb}", question.second
    readings = "; ".join(_counts(question, reading) for reading in question.readings)
    return " ".join(part for part in (what, said.get(question.order, ""), other, f"({readings})") if part)


def _counts(question: Question, reading: Reading) -> str:
    (here, of_here), (there, of_there) = reading.first, reading.second
    through = f"through {reading.places[0]}'s crosscoder " if question.is_of_control else ""
    shown = f"{here:,} of {of_here:,} against {there:,} of {of_there:,}"
    cut = "" if question.is_of_control else f" above {question.cut}"
    return f"{through}{shown}{cut}, {_estimate(reading.difference)} points"


def _learned(equal: EqualDrift, questions: Sequence[Question]) -> str:
    """Few features of a model that learned little say little."""
    names = list(dict.fromkeys(name for question in questions for name in (question.first, question.second)))
    gains = [f"{_estimate(equal.model('mixed with the base', name).accuracy.gain)} for {name}" for name in names]
    differences = [f"{one.first} less {one.second} is {_estimate(one.gain)}" for one in questions]
    return (
        f"Mean accuracy there is, in points above the base, {listing(gains)}; {listing(differences)} "
        f"({equal.base.tasks} tasks, {equal.base.items:,} items)."
    )


def _checkpoints(equal: EqualDrift, questions: Sequence[Question], least: str) -> str:
    near = [one for one in equal.models if one.way == "nearest checkpoint" and one.of != least]
    named = listing([f"{one.name} at {one.kl_task:.3g}" for one in near])
    said = {"more": "more", "fewer": "fewer", "undecided": "no difference that can be told"}
    found = [
        f"{said[one.order]} for {one.first} against {one.second}"
        + ("" if one.order == mixed.order else f" (not as above: {said[mixed.order]})")
        for one, mixed in zip(equal.answered("nearest checkpoint"), questions, strict=True)
    ]
    return f"With the checkpoints of nearest KL instead ({named}): {listing(found)}."


def _what_would_change(questions: Sequence[Question], confidence: float) -> str:
    rule = f"By rule, more or fewer is said only where the {100 * confidence:.0f} % interval over features leaves out 0"
    if controls := [question for question in questions if question.is_of_control]:
        places = [reading.places[0] for reading in controls[0].readings]
        teacher = controls[0].second
        favoured = [f"{place}'s favours {place if place == teacher else f'what imitates {place}'}" for place in places]
        rule += f", for the control in both crosscoders, since {listing(favoured)}"
    readings = [(question, reading) for question in questions for reading in question.readings]
    turns = [_turn(question, reading) for question, reading in readings if reading.turns_at is not None]
    change = f" What would change a reading: {'; '.join(turns)}." if turns else ""
    return (
        f"{rule}.{change} Each model is one run (n = 1), which no interval over features covers: another seed may turn "
        f"an answer."
    )


def _turn(question: Question, reading: Reading) -> str:
    through = f" in {reading.places[0]}'s crosscoder" if question.is_of_control else ""
    return f"{reading.turns_at:,} features of {question.first}{through} instead of {reading.first[0]:,}"


def _estimate(found: Estimate) -> str:
    return f"{points(found.value)} {points_interval(found.interval)}"
