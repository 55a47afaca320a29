"""Drift in a run: interpolations are model folders, KL is matched, tails grow with the change; and its control."""

import shutil
from pathlib import Path

import pytest
import torch
from made_up_drift import MATCHINGS
from safetensors.torch import load_file
from tiny_study import changed, contents, summary, write_posttrained_study

from featdiff.activations.stream import Activations
from featdiff.analyses import drift
from featdiff.analyses.drift.compute import answer_texts, packed_texts
from featdiff.analyses.drift.result import Drift, EqualModel, Matching, ModelDrift
from featdiff.attribution.swap import PRESENT, swap_specificity
from featdiff.attribution.tail_comparison import unanimous
from featdiff.config.study_file import read_study
from featdiff.crosscoder import Crosscoder
from featdiff.evaluation.results import TaskResult
from featdiff.files import load, read_json
from featdiff.models.divergence import Text, mean_divergence
from featdiff.models.loading import load_model, load_tokenizer
from featdiff.planted import Group, World
from featdiff.posttraining.stages import rft
from featdiff.run.plan import Plan
from featdiff.run.swapped import specificity_in_place
from featdiff.workflow.registry import stages_of
from featdiff.workflow.runner import run_verb


def found_in(plan: Plan) -> Drift:
    return load(Drift, plan.run.path("drift", "drift.json"))


@pytest.fixture
def found(tiny: Plan) -> Drift:
    return found_in(tiny)


def rows(found: Drift, tuned: str) -> dict[str, ModelDrift]:
    return {row.name: row for row in found.rows if row.tuned == tuned}


def task_texts(plan: Plan) -> list[Text]:
    return [text for one in drift.task_requests(plan) for text in answer_texts(one, plan.study.drift)]


def neutral_texts(plan: Plan) -> list[Text]:
    return list(packed_texts(drift.neutral_corpus(plan, load_tokenizer(plan.paths["base"])), 4))


def test_every_model_on_the_way_has_a_row(found: Drift) -> None:
    (further,) = {"sft", "rl"} - {found.least}
    for tuned in ("sft", "rl"):
        mixed = [f"{tuned} x {alpha}" for alpha in (0.25, 0.5, 0.75)]
        wanted = [f"{tuned}-1", tuned, *mixed, *([f"{tuned} matched"] if tuned == further else [])]
        assert list(rows(found, tuned)) == wanted


def test_drift_rises_along_the_interpolation(found: Drift) -> None:
    for tuned in ("sft", "rl"):
        way = [rows(found, tuned)[name] for name in (f"{tuned} x 0.25", f"{tuned} x 0.5", f"{tuned} x 0.75", tuned)]
        for key in ("kl_task", "kl_neutral"):
            assert sorted(getattr(row, key) for row in way) == [getattr(row, key) for row in way]
        shares = [row.weights["all"] / way[3].weights["all"] for row in way]
        assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0], rel=1e-3)
        assert way[0].activations[3] < way[3].activations[3] and len(way[0].activations) == 4


def test_the_matched_interpolation_has_the_divergence_of_the_other_model(tiny: Plan, found: Drift) -> None:
    (further,) = {"sft", "rl"} - {found.least}
    matched, other = rows(found, further)[f"{further} matched"], rows(found, found.least)[found.least]
    assert matched.kl_task == pytest.approx(other.kl_task, rel=0.02)
    assert matched.alpha is not None and 0 < matched.alpha < 1
    folder = tiny.run.path("drift", further, "matched")
    model = load_model(str(folder))
    again = mean_divergence(load_model(tiny.paths["base"]), model, task_texts(tiny))
    assert again == pytest.approx(matched.kl_task, rel=1e-5)
    here, there, mixed = (
        load_file(Path(path) / "model.safetensors") for path in (tiny.paths["base"], tiny.paths[further], folder)
    )
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(mixed[name], torch.lerp(here[name], there[name], matched.alpha))


def test_tails_are_those_of_the_pair_where_there_is_one(found: Drift) -> None:
    assert all(row.tails is None for row in rows(found, "sft").values())
    for row in rows(found, "rl").values():
        assert row.tails is not None and row.tails.keys() == {"0.8", "0.9", "measured"}
        assert row.crossed == {}  # only the control is read in another model's place
        assert 0 <= row.tails["0.9"] <= row.tails["0.8"] <= row.tails["measured"] <= 64


def test_answers_are_what_is_compared_on_the_tasks(tiny: Plan) -> None:
    texts = task_texts(tiny)
    assert sum(len(text.input_ids) for text in texts) == 48  # the task of the role `train`
    for text in texts:
        assert text.attention_mask is not None and text.compared.any(dim=1).all()
        assert not (text.compared & (text.attention_mask == 0)).any()


def test_neutral_text_is_of_the_source_that_the_study_names(tiny: Plan) -> None:
    whole = neutral_texts(tiny)
    named = neutral_texts(Plan(changed(tiny.study, drift={"neutral": tiny.study.corpus.sources[0].path})))
    assert not torch.equal(whole[0].input_ids, named[0].input_ids)
    with pytest.raises(ValueError, match=r"drift\.neutral is nothing, which is no source"):
        neutral_texts(Plan(changed(tiny.study, drift={"neutral": "nothing"})))


def test_in_a_planted_world_the_tail_grows_with_the_share_of_the_change() -> None:
    """Linear activations: at alpha a feature has base + alpha (tuned - base), so its score is known."""
    ratios = (0.0, 0.02, 0.1, 0.15, 0.2, 0.3, 1.0)
    groups = tuple(Group(("base", "tuned"), 2, (ratio, 1.0), probability=0.2, magnitude="uniform") for ratio in ratios)
    world = World.build(("base", "tuned"), 16, groups, seed=3)
    crosscoder = Crosscoder(world.models, d_model=16, features=len(world.strength))
    with torch.no_grad():
        crosscoder.W_dec.copy_(world.rows)
        crosscoder.W_enc.zero_()
        crosscoder.W_enc[1] = world.direction[:, 1].T
    alphas = (0.05, 0.25, 0.5, 0.75, 1.0)
    values = world.sample(4000, torch.Generator().manual_seed(4)).activations
    mixed = [torch.lerp(values[:, 0], values[:, 1], alpha) for alpha in alphas]
    names = tuple(f"x{alpha}" for alpha in alphas)
    batch = Activations((*world.models, *names), torch.stack([*values.unbind(1), *mixed], 1), torch.zeros(4000).long())
    (found,) = swap_specificity([crosscoder], [batch], names)

    tails = [int((row > 0.8).sum()) for row in found]

    def specific(ratio: float, alpha: float) -> bool:
        here = ratio + alpha * (1 - ratio)
        return here > 0.8 * (ratio + here) and ratio + here > PRESENT * (ratio + 1)

    assert tails == [2 * sum(specific(ratio, alpha) for ratio in ratios) for alpha in alphas] == sorted(tails)
    assert tails[0] < tails[1] < tails[-1]


MODELS = ("sft", "rl", "rft")
LINEUPS = {name: {"models": ["base", *name.split("-")[1:]]} for name in ("base-sft", "base-rl", "base-sft-rl")}


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A study with the control, after `drift`."""
    pytest.importorskip("trl")
    folder = tmp_path_factory.mktemp("controlled")
    study = changed(
        read_study(write_posttrained_study(folder)),
        runs=str(folder / "runs"),
        posttrain__rejection={"samples": 2, "max_completion_length": 8, "batch_size": 5},
        crosscoder__lineups=LINEUPS,
        drift={"alphas": [0.5], "min_active": 5, "accuracy_items": 20},
    )
    for verb in ("sft", "grpo", "rft", "evaluate", "train", "drift"):
        run_verb(study, verb)
    return Plan(study)


@pytest.fixture(scope="module")
def crossed(controlled: Plan) -> Drift:
    """What `drift` found with the control."""
    return found_in(controlled)


def models(found: Drift, matching: Matching) -> dict[str, EqualModel]:
    return {one.of: one for one in found.equal.models if one.way == matching}


# ------------------------------------------------------------------ the training of its control


def test_the_control_has_checkpoints_of_its_own_and_counts_what_was_drawn(controlled: Plan) -> None:
    trail = controlled.trail("rft")
    assert list(trail) == ["rft-1", "rft-2", "rft"] and trail["rft"] == trail["rft-2"]
    weights = {name: load_file(Path(path) / "model.safetensors") for name, path in (controlled.paths | trail).items()}
    for one, other in (("base", "rft-1"), ("rft-1", "rft-2"), ("rft-2", "sft-2"), ("rft-2", "rl-2")):
        assert any(not torch.equal(weights[one][key], weights[other][key]) for key in weights[one])
    traces = read_json(controlled.run.path("posttrain", "rft", "traces.json"))
    assert traces["prompts"] == 12 and traces["drawn"] == traces["kept"] + traces["wrong"] + traces["repeated"]
    assert read_json(controlled.run.path("posttrain", "rft", "examples.json"))["used"] == traces["kept"] > 0


def test_making_the_control_again_gives_the_same_bytes(controlled: Plan, tmp_path: Path) -> None:
    samples = controlled.run.path("posttrain", "rft", "samples.jsonl").read_bytes()
    (tmp_path / "samples.jsonl").write_bytes(samples[: len(samples) // 2])  # an attempt that was killed
    rft(controlled, tmp_path)
    again, before = contents(tmp_path), contents(controlled.run.path("posttrain", "rft"))
    del before["stage.json"]
    assert again == before


def test_the_control_is_no_member_of_the_lineup_and_leaves_the_other_stages_alone(controlled: Plan) -> None:
    assert controlled.models == ("base", "sft", "rl") and controlled.drifting == MODELS
    without = Plan(changed(controlled.study, posttrain__rejection=None))
    assert without.drifting == ("sft", "rl") and "rft" not in [stage.name for stage in stages_of(without)]
    stale = [stage.name for stage in stages_of(without) if without.run.state(stage) == "stale"]
    assert stale == ["drift"]


# ------------------------------------------------------------------ the drift of its control


def test_every_matching_has_every_model_and_the_least_moved_one_as_it_is(controlled: Plan, crossed: Drift) -> None:
    least, by_name = crossed.least, {row.name: row for row in crossed.rows}
    for matching in MATCHINGS:
        found = models(crossed, matching)
        assert tuple(found) == MODELS and found[least].name == least
        assert all(found[of].kl_task == by_name[found[of].name].kl_task for of in MODELS)
    wanted = crossed.task_divergence[least]
    assert all(one.kl_task == pytest.approx(wanted, rel=0.02) for one in models(crossed, MATCHINGS[1]).values())
    for of, one in models(crossed, MATCHINGS[2]).items():
        distance = {name: abs(by_name[name].kl_task - wanted) for name in controlled.trail(of) if name in by_name}
        assert of == least or distance[one.name] == min(distance.values())


def test_the_control_is_read_in_the_place_of_every_tuned_model(controlled: Plan, crossed: Drift) -> None:
    for row in crossed.rows:
        own = row.tuned != "rft"
        assert (row.tails is not None) == own and list(row.crossed) == ([] if own else ["sft", "rl"])
    alive, path = drift.tails_of(controlled).alive, controlled.trail("rft")["rft"]
    row = rows(crossed, "rft")["rft"]
    for place in ("sft", "rl"):
        specificity = specificity_in_place(controlled, place, path)
        assert row.crossed[place]["0.8"] == int((alive[place] & (specificity > 0.8)).sum())
        assert models(crossed, "as trained")["rft"].tails[place] == row.crossed[place]


def test_accuracy_is_that_of_the_same_first_items_for_every_model(controlled: Plan, crossed: Drift) -> None:
    def mean(folder: Path) -> float:
        results = [TaskResult.load(folder / f"{task.name}.parquet") for task in controlled.study.evaluation.tasks]
        return sum(sum(one.correct for one in result.samples[:20]) / 20 for result in results) / len(results)

    base, whole = crossed.equal.base, models(crossed, "as trained")
    assert base.value == pytest.approx(mean(controlled.run.path("evaluation", "base"))) and base.items == 60
    for tuned in ("sft", "rl"):
        assert whole[tuned].accuracy.value == pytest.approx(mean(controlled.run.path("evaluation", tuned)))
    assert whole["rft"].accuracy.value == pytest.approx(mean(controlled.run.path("drift", "evaluation", "rft")))
    for one in crossed.equal.models:
        gain = one.accuracy.gain
        assert base.value is not None and one.accuracy.value is not None and gain.value is not None
        assert gain.value == pytest.approx(one.accuracy.value - base.value)
        assert gain.interval[0] <= gain.value <= gain.interval[1]


def test_both_questions_are_asked_under_every_matching_and_the_control_through_both_crosscoders(crossed: Drift) -> None:
    asked = [(one.way, one.first, one.second) for one in crossed.equal.questions]
    assert asked == [(matching, *pair) for matching in MATCHINGS for pair in (("sft", "rl"), ("rft", "sft"))]
    for question in crossed.equal.questions:
        places = [reading.places for reading in question.readings]
        assert places == ([("sft", "rl")] if question.first == "sft" else [("sft", "sft"), ("rl", "rl")])
        assert question.order == unanimous(reading.order for reading in question.readings)
        first, second = (
            models(crossed, question.way)[name].accuracy.value for name in (question.first, question.second)
        )
        assert first is not None and second is not None and question.gain.value == pytest.approx(first - second)


def test_a_killed_drift_goes_on_with_what_was_evaluated_to_the_same_bytes(controlled: Plan, tmp_path: Path) -> None:
    made = controlled.run.path("drift")
    shutil.copytree(made / "evaluation" / "rft", tmp_path / "evaluation" / "rft")
    before = (tmp_path / "evaluation" / "rft" / "colours.parquet").stat().st_mtime_ns
    drift.run(controlled, tmp_path)
    again, wanted = contents(tmp_path), contents(made)
    del wanted["stage.json"]
    assert again == wanted
    assert (tmp_path / "evaluation" / "rft" / "colours.parquet").stat().st_mtime_ns == before


def test_the_summary_holds_what_was_found(controlled: Plan, crossed: Drift) -> None:
    numbers = summary(controlled)
    assert numbers["equal_drift"] == read_json(controlled.run.path("drift", "drift.json"))["equal"]
    one, row = numbers["drift"]["rft"]["rft"], rows(crossed, "rft")["rft"]
    assert one["crossed"] == row.crossed and one["weights"] == row.weights["all"]
