"""Dynamics and stability in a run: by the crosscoders' own weights, and with three seeds of everything."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_study import changed, summary
from torch.testing import assert_close

from featdiff.analyses import dynamics
from featdiff.analyses.dynamics.compute import overlap_of
from featdiff.analyses.dynamics.result import Dynamics
from featdiff.analyses.ownership.result import Ownership
from featdiff.attribution import Attribution
from featdiff.attribution.alignments import matched_trajectory
from featdiff.attribution.scores import decoder_cosines, model_attribution_score
from featdiff.attribution.trajectories import follow, joint_scores
from featdiff.config.study_file import read_study
from featdiff.crosscoder import Crosscoder
from featdiff.crosscoder.provenance import Origin, origin_of
from featdiff.files import load, read_json
from featdiff.presentation.words import mean
from featdiff.run.plan import Plan
from featdiff.run.scored import scored
from featdiff.workflow.runner import run_verb

ALIGNMENTS = ["joint", "matched", "swap", "same_seed_index"]


@pytest.fixture(scope="module")
def seeded(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Three seeds of all crosscoders that dynamics needs, compared. Not to be changed."""
    runs = tmp_path_factory.mktemp("seeded")
    study = changed(
        read_study(study_file),
        runs=str(runs),
        evaluation__tasks=[],
        crosscoder__lineups={},
        crosscoder__seeds=[0, 1, 2],
        crosscoder__features=48,
        dynamics__min_active=20,
    )
    for verb in ("train", "attribute", "stability", "dynamics"):
        run_verb(study, verb)
    return Plan(study)


def found_in(plan: Plan, tuned: str) -> Dynamics:
    return load(Dynamics, plan.run.path("dynamics", f"{tuned}.json"))


def origins(plan: Plan, names: tuple[str, ...]) -> list[Origin]:
    found = [origin_of(Crosscoder.load(plan.run.path("crosscoders", name))) for name in names]
    assert None not in found
    return [one for one in found if one is not None]


@pytest.mark.parametrize("tuned", ["sft", "rl"])
def test_joint_dynamics_follow_the_two_model_score_of_each_checkpoint(tiny: Plan, tuned: str) -> None:
    found = found_in(tiny, tuned).main
    specificity = load_file(tiny.run.path("dynamics", f"{tuned}.safetensors"))["specificity"]
    mas = load_file(tiny.run.path("attribution", f"dynamics-{tuned}.safetensors"))["mas"]
    assert_close(specificity, torch.stack([mas[:, c] / (mas[:, 0] + mas[:, c]) for c in (1, 2)]))

    tops = [sorted(range(64), key=lambda k, scores=scores: -scores[k])[:10] for scores in specificity.tolist()]
    assert found.checkpoints == (f"{tuned}-1", f"{tuned}-2") and [list(row) for row in found.ranked] == tops
    assert found.overlap[0][1] == pytest.approx(len(set(tops[0]) & set(tops[1])) / 10)
    assert found.chance == pytest.approx(10 / 64) and found.noise_floor is None
    climbed = tuple(rank - tops[1].index(k) if k in tops[1] else None for rank, k in enumerate(tops[0]))
    assert found.rank_shift == (climbed,) and found.counted == (10, 10)


def test_alignments_whose_crosscoders_the_study_lacks_are_missing_with_the_reason(tiny: Plan) -> None:
    rl, sft = (found_in(tiny, tuned) for tuned in ("rl", "sft"))
    assert list(rl.by_alignment) == ["joint", "swap"] and list(sft.by_alignment) == ["joint"]
    single = "not every one of sft-1, sft-2 has a crosscoder of itself and the base"
    swap = "it takes a crosscoder of the base and sft alone, and one that reads sft-1, sft-2"
    assert sft.missing == {"matched": single, "swap": swap, "same_seed_index": single}


def test_a_tuned_model_whose_checkpoints_no_crosscoder_reads_has_no_dynamics(own: Plan) -> None:
    lineups = own.study.model_dump(mode="json")["crosscoder"]["lineups"]
    del lineups["dynamics-sft"]
    own.run.path("new").mkdir()
    dynamics.run(Plan(changed(own.study, crosscoder__lineups=lineups)), own.run.path("new"))
    assert sorted(path.name for path in own.run.path("new").iterdir()) == ["rl.json", "rl.safetensors"]


def test_a_study_without_joint_trajectories_takes_the_first_alignment_as_its_main_one(own: Plan) -> None:
    own.run.path("new").mkdir()
    dynamics.run(Plan(changed(own.study, dynamics__alignments=["swap"])), own.run.path("new"))
    found = load(Dynamics, own.run.path("new", "rl.json"))
    assert found.main.alignment == "swap" and list(found.by_alignment) == ["swap"]


@pytest.mark.parametrize("tuned", ["sft", "rl"])
def test_every_alignment_has_its_floor_where_there_are_seeds(seeded: Plan, tuned: str) -> None:
    found = found_in(seeded, tuned)
    assert list(found.by_alignment) == ALIGNMENTS and found.missing == {}
    for one in found.by_alignment.values():
        assert one.seeds == 3 and one.between_seeds is not None
        floors = [row[c] for c, row in enumerate(one.between_seeds)]
        assert one.floors == tuple(floors) and one.noise_floor == pytest.approx(mean(floors))
    tensors = load_file(seeded.run.path("dynamics", f"{tuned}.safetensors"))
    assert sorted(tensors) == sorted(["specificity", *(f"specificity.{name}" for name in ALIGNMENTS)])


def test_matched_trajectories_are_those_of_the_crosscoders_of_each_seed(seeded: Plan) -> None:
    seeds = [
        [scored(seeded, name) for name in names]
        for names in (("base-rl-1", "base-rl-2"), *(tuple(f"base-rl-{c}-seed{s}" for c in (1, 2)) for s in (1, 2)))
    ]
    wanted = matched_trajectory(seeds, ("rl-1", "rl-2"), top=10)
    assert found_in(seeded, "rl").by_alignment["matched"] == overlap_of(wanted)


def test_crosscoders_record_seed_start_and_data_and_only_the_start_differs_between_seeds(seeded: Plan) -> None:
    checkpoints = origins(seeded, ("base-rl-1", "base-rl-2", "base-sft-1"))
    assert len(set(checkpoints)) == 1
    seeds = origins(seeded, seeded.seeds["joint"])
    assert [one.seed for one in seeds] == [0, 1, 2] and len({one.initial_weights for one in seeds}) == 3
    assert {one.data_order for one in seeds} == {checkpoints[0].data_order}


def test_the_index_comparison_is_refused_in_the_run_where_the_seeds_differ(own: Plan, seeded: Plan) -> None:
    lineups = {
        "joint": {"models": ["base", "sft", "rl"]},
        "one": {"models": ["base", "rl-1"], "seed": 0},
        "two": {"models": ["base", "rl-2"], "seed": 1},
    }
    study = changed(own.study, crosscoder__lineups=lineups, evaluation__tasks=[])
    for verb in ("train", "dynamics"):
        run_verb(study, verb)
    found = found_in(own, "rl")
    assert list(found.by_alignment) == ["matched", "swap"]
    assert "differ in seed (0, 1)" in found.missing["same_seed_index"]


def test_stability_counts_tails_under_every_seed_as_attribute_does(seeded: Plan) -> None:
    found = read_json(seeded.run.path("stability", "joint.json"))
    places = [seeded.run.path("attribution", f"{name}.json") for name in seeded.seeds["joint"]]
    tails = [load(Ownership, place).summary() for place in places]
    assert found["crosscoders"] == ["joint", "joint-seed1", "joint-seed2"] and found["seeds"] == [0, 1, 2]
    for model, cuts in found["tails"].items():
        for cut, spread in cuts.items():
            values = [float(str(one[model][cut])) for one in tails]
            assert spread["values"] == values and spread["mean"] == pytest.approx(sum(values) / 3)
    tensors = load_file(seeded.run.path("stability", "joint.safetensors"))
    alive = load_file(seeded.run.path("attribution", "joint.safetensors"))["alive"]
    assert found["stable"] == int(((tensors["matched_in"] >= 2) & alive).sum())
    assert_close(tensors["mas"][0], load_file(seeded.run.path("attribution", "joint.safetensors"))["mas"])


def test_lineups_of_one_seed_have_no_stability(tiny: Plan) -> None:
    assert not tiny.run.path("stability").exists() and "stability" not in summary(tiny)


def test_the_summary_says_everything_by_alignment_and_by_seed(seeded: Plan) -> None:
    found = summary(seeded)
    rl = found["dynamics"]["rl"]
    assert rl["alignment"] == "joint" and list(rl["by_alignment"]) == ALIGNMENTS
    assert rl["by_alignment"]["joint"]["overlap"] == rl["overlap"]
    joint = found["stability"]["joint"]
    assert joint["tails"]["rl"]["0.8"]["values"] == [
        found["tails"][name]["rl"]["0.8"] for name in ("joint", "joint-seed1", "joint-seed2")
    ]
    assert set(found["quality"]) == set(seeded.lineups)


def test_a_feature_that_leaves_the_top_is_a_blank() -> None:
    W_dec = torch.tensor([[1.0, 9.0, 1.0], [1.0, 1.0, 9.0]]).unsqueeze(-1)
    scores, alive = model_attribution_score(W_dec), torch.tensor([True, True])
    names, index, density = ("sft-1", "sft-2"), torch.arange(2), torch.full((2,), 0.1)
    attribution = Attribution(("base", *names), "normalised", scores, scores, decoder_cosines(W_dec), density, alive)
    read = joint_scores(attribution, names)
    found = overlap_of(follow([read], names, lambda _, __: index, torch.ones_like(read.alive), "joint", top=1))

    assert found.rank_shift == ((None,),)
    assert found.overlap == ((1.0, 0.0), (0.0, 1.0))
    assert found.chance == 0.5
