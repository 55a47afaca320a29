"""A verb makes one stage out of others; `run` makes what is missing or stale, and nothing else."""

import fcntl
import shutil
from dataclasses import replace

import pytest
from tiny_study import changed, contents

from featdiff.config.study import Study
from featdiff.files import read_json, write_json
from featdiff.run.plan import Plan
from featdiff.workflow.registry import REPORT, STAGES, stage_of, stages_of
from featdiff.workflow.runner import run_study, run_verb
from featdiff.workflow.show import show

MADE_AT_A_TIME = {"provenance.json", "report.html"}  # these two hold hours and durations


def made_by(study: Study, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The stages that `run` makes of a study."""
    capsys.readouterr()
    run_study(study)
    lines = [line.split("] ")[1] for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    return [line for line in lines if not line.endswith(": up to date")]


def test_the_stages_of_a_study_are_those_of_the_registry_in_its_order(tiny: Plan) -> None:
    optional = {"inputs", "sft", "grpo", "rft", "stability", "sensitivity"}
    names = [stage.name for stage in (*STAGES, REPORT) if stage.name not in optional]
    assert [stage.name for stage in stages_of(tiny)] == names


def test_another_method_makes_stale_exactly_the_stages_that_build_on_it(
    tiny: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = [replace(one, method=one.method + 1) if one.name == "select" else one for one in STAGES]
    monkeypatch.setattr("featdiff.workflow.registry.STAGES", tuple(raised))
    stale = {stage.name for stage in stages_of(tiny) if tiny.run.state(stage) == "stale"}
    assert stale == {"select", "intervene", "ways", "examples", "report"}
    shown = show(tiny.run.folder)
    assert "made by method 1, method 2 wanted" in shown and shown.count(" wanted") == 1


def test_a_second_run_makes_nothing_and_changes_no_byte(own: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(own.run.folder)
    report = run_study(own.study)
    assert report == own.run.path("report.html") and report.is_file()
    assert capsys.readouterr().err.count(": up to date") == len(stages_of(own))
    run_study(own.study)
    after = contents(own.run.folder)
    assert before.pop("study.json") != after.pop("study.json")  # the copy names its own place
    assert after == before


READING = ("attribute", "dynamics", "quality", "drift", "select", "intervene", "ways", "examples", "report")


@pytest.mark.parametrize("stage", ["evaluate", "train", *READING])
def test_a_stage_that_is_lost_comes_back_alone_and_with_the_same_bytes(
    own: Plan, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    before = contents(own.run.folder)
    shutil.rmtree(own.run.path(stage_of(own, stage).folder))
    assert made_by(own.study, capsys) == [stage]
    after = contents(own.run.folder)
    ignored = MADE_AT_A_TIME | {"study.json"}
    assert {name: after[name] for name in after if name not in ignored} == {
        name: before[name] for name in before if name not in ignored
    }


def test_a_lost_report_comes_back(own: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    own.run.path("report.html").unlink()
    assert made_by(own.study, capsys) == ["report"]
    assert own.run.path("report.html").is_file()


@pytest.mark.parametrize(
    ("setting", "value", "made"),
    [
        ("attribution__tails", [0.5], ["attribute", "drift", "examples", "report"]),
        ("selection__threshold", 0.6, ["select", "intervene", "ways", "examples", "report"]),
        ("intervention__amplify", 1.0, ["intervene", "ways", "report"]),
    ],
)
def test_one_changed_setting_makes_what_reads_it_and_leaves_the_rest(
    own: Plan, capsys: pytest.CaptureFixture[str], setting: str, value: object, made: list[str]
) -> None:
    kept = ("crosscoders", "evaluation", "dynamics", "quality")
    before = {folder: contents(own.run.path(folder)) for folder in kept}
    assert made_by(changed(own.study, **{setting: value}), capsys) == made
    assert {folder: contents(own.run.path(folder)) for folder in kept} == before


def test_what_differs_is_what_was_asked_for(own: Plan) -> None:
    study = changed(own.study, intervention__amplify=1.0)
    run_study(study)
    edits = {effect["edit"] for effect in read_json(own.run.path("summary.json"))["effects"]}
    assert edits == {"zero", "set to 1.0", "set to rl's mean active value"}
    assert read_json(own.run.path("study.json"))["intervention"]["amplify"] == 1.0


def test_a_verb_makes_its_own_stage_and_no_other(own: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(own.run.path("attribution"))
    shutil.rmtree(own.run.path("figures"))
    assert run_verb(own.study, "attribute") == own.run.path("attribution")
    assert own.run.state(stage_of(own, "attribute")) == "done" and own.run.state(stage_of(own, "report")) == "missing"
    run_verb(own.study, "attribute")
    assert "attribute: up to date" in capsys.readouterr().err


def test_a_verb_refuses_to_build_on_what_is_missing(fresh: Plan) -> None:
    with pytest.raises(ValueError, match="attribute builds on train, which is missing; make it first"):
        run_verb(fresh.study, "attribute")
    assert not fresh.run.path("attribution").exists() and not fresh.run.path("crosscoders").exists()


def test_a_verb_refuses_to_build_on_what_is_stale_and_says_why(own: Plan) -> None:
    with pytest.raises(ValueError, match=r"select builds on train, which is stale \(training changed\)"):
        run_verb(changed(own.study, training__lr=1.0), "select")


def test_a_verb_of_a_stage_that_the_study_does_not_have_is_refused(fresh: Plan) -> None:
    with pytest.raises(ValueError, match="this study has no stage sft; it has evaluate, train"):
        run_verb(fresh.study, "sft")


def test_a_run_that_someone_works_on_is_left_alone(own: Plan) -> None:
    before = contents(own.run.folder)
    with own.run.path(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another featdiff works on"):
            run_study(changed(own.study, training__lr=1.0))
    assert contents(own.run.folder) == before


def test_a_stage_that_fails_is_absent_and_what_was_made_before_it_stays(
    own: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **settings: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr("featdiff.analyses.selection.compute.write_selection", broken)
    shutil.rmtree(own.run.path("selection"))
    with pytest.raises(ValueError, match="broken"):
        run_study(own.study)
    states = {stage.name: own.run.state(stage) for stage in stages_of(own)}
    assert states.pop("select") == "missing" and set(states.values()) == {"done"}


def test_a_run_says_how_each_stage_was_made(tiny: Plan) -> None:
    notes = read_json(tiny.run.path("provenance.json"))
    assert {name: note["fingerprint"] for name, note in notes.items()} == {
        stage.name: stage.fingerprint for stage in stages_of(tiny)
    }
    assert all(note["versions"]["torch"] and note["seconds"] >= 0 for note in notes.values())


def test_a_stage_can_be_made_again_in_a_run_of_an_earlier_version(own: Plan) -> None:
    """The files of what is stale have another form; they are left out of the summary until they are made again."""
    write_json(own.run.path("attribution", "joint.json"), {"models": [], "tails": {}})
    record = read_json(own.run.path("attribution", "stage.json"))
    write_json(own.run.path("attribution", "stage.json"), {**record, "fingerprint": "0123456789abcdef"})
    shutil.rmtree(own.run.path("evaluation"))
    run_verb(own.study, "evaluate")
    found = read_json(own.run.path("summary.json"))
    assert found["accuracy"].keys() == {"colours", "animals", "numbers"} and "tails" not in found
    assert own.run.state(stage_of(own, "attribute")) == "stale"


def test_a_damaged_result_that_is_up_to_date_is_named(own: Plan) -> None:
    write_json(own.run.path("attribution", "joint.json"), {"models": [], "tails": {}})
    shutil.rmtree(own.run.path("evaluation"))
    with pytest.raises(ValueError, match=r"joint\.json is damaged"):
        run_verb(own.study, "evaluate")
