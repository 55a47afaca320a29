import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from featdiff.files import load, save
from featdiff.intervention.edits import Edit
from featdiff.intervention.effect_records import FullEffectRecord
from featdiff.intervention.effects import EditedAnswers, Effect, ItemSets, measure_effect

ZERO = Edit(torch.tensor([4, 7]), 0.0)
AMPLIFY = Edit(torch.tensor([4, 7]), 3.0)


def effect_of(
    edit: Edit,
    before: Tensor,
    answers: EditedAnswers,
    sets: ItemSets,
    held_out: EditedAnswers | None = None,
    resamples: int = 2000,
) -> Effect:
    return measure_effect(
        "toy", "rl", edit, before, answers, held_out or answers, sets, resamples=resamples, confidence=0.95, seed=0
    )


def ten_items() -> tuple[Tensor, EditedAnswers, ItemSets]:
    """Items 0-3 are critical (2, 3 held out), 4 and 5 mirror. The edit breaks 0, 1, 2, mends 4; controls break 0."""
    before = torch.tensor([1, 1, 1, 1, 0, 0, 1, 1, 0, 0]).bool()
    after = torch.tensor([0, 0, 0, 1, 1, 0, 1, 1, 0, 0]).bool()
    controls = before.repeat(4, 1)
    controls[:, 0] = False
    controls[0] = after
    return before, EditedAnswers(after, controls), ItemSets(torch.arange(4), torch.tensor([4, 5]), torch.tensor([2, 3]))


def test_accuracies_changes_and_controls_are_counted_on_each_set() -> None:
    effect = effect_of(ZERO, *ten_items())
    found = {name: (part.n, part.before, part.after, part.change.value) for name, part in effect.sets.items()}
    assert found == {
        "critical": (4, 1.0, 0.25, -0.75),
        "mirror": (2, 0.0, 0.5, 0.5),
        "all": (10, 0.6, 0.4, pytest.approx(-0.2)),
        "held_out": (2, 1.0, 0.5, -0.5),
    }
    assert effect.sets["critical"].controls.tolist() == [-0.75, -0.25, -0.25, -0.25]
    assert effect.sets["held_out"].controls.tolist() == [-0.5, 0.0, 0.0, 0.0]
    assert effect.sets["critical"].control.value == pytest.approx(-0.375)
    assert effect.sets["critical"].beyond_controls.value == pytest.approx(-0.375)


def test_zeroing_is_expected_to_harm_and_amplifying_to_help() -> None:
    before, answers, sets = ten_items()
    # One of four controls falls as far as the edit; all four rise at least as far.
    assert effect_of(ZERO, before, answers, sets).sets["critical"].p == pytest.approx(2 / 5)
    assert effect_of(AMPLIFY, before, answers, sets).sets["critical"].p == pytest.approx(5 / 5)
    assert [effect_of(edit, before, answers, sets).expected for edit in (ZERO, AMPLIFY)] == ["decrease", "increase"]


def test_the_held_out_set_is_judged_by_the_features_that_were_chosen_without_it() -> None:
    before, answers, sets = ten_items()
    other = EditedAnswers(before.clone(), answers.controls)
    effect = effect_of(ZERO, before, answers, sets, held_out=other)
    assert effect.sets["held_out"].change.value == 0.0
    assert effect.sets["critical"].change.value == -0.75
    assert effect.record().p == effect.sets["held_out"].p == 1.0


def test_the_summary_has_exactly_the_keys_that_were_agreed() -> None:
    summary = asdict(effect_of(ZERO, *ten_items()).record())
    assert list(summary) == ["task", "model", "edit", "features", "sets", "control", "p", "verdict", "controls"]
    assert (summary["edit"], summary["features"]) == ("zero", 2)
    sets, control = summary["sets"], summary["control"]
    assert isinstance(sets, dict) and isinstance(control, dict)
    assert {name: list(part) for name, part in sets.items()} == {
        name: ["before", "after", "n", "interval"] for name in ("critical", "mirror", "all", "held_out")
    }
    assert list(control) == ["draws", "mean", "interval"]
    assert control["draws"] == 4


def test_the_record_is_json_and_holds_the_change_under_every_control() -> None:
    record = json.loads(json.dumps(asdict(effect_of(ZERO, *ten_items()).full_record()), allow_nan=False))
    assert record["sets"]["critical"]["control"]["values"] == [-0.75, -0.25, -0.25, -0.25]
    assert record["expected"] == "decrease"


def test_a_set_without_items_shows_nothing_and_breaks_nothing() -> None:
    before, answers, _ = ten_items()
    nothing = torch.zeros(0, dtype=torch.long)
    effect = effect_of(ZERO, before, answers, ItemSets(nothing, nothing, nothing))
    for name in ("critical", "mirror", "held_out"):
        part = effect.sets[name]
        assert (part.n, part.before, part.after, part.verdict, part.p) == (0, None, None, "underpowered", 1.0)
    record = json.loads(json.dumps(asdict(effect.full_record()), allow_nan=False))
    assert record["sets"]["critical"]["change"] is None
    assert record["verdict"] == "underpowered"


def test_an_empty_selection_has_an_effect_of_nothing() -> None:
    before, _, sets = ten_items()
    still = EditedAnswers(before.clone(), before.repeat(4, 1))
    effect = effect_of(Edit(torch.zeros(0, dtype=torch.long), 0.0), before, still, sets)
    assert effect.features == 0
    assert all(part.change.value == 0.0 and part.p == 1.0 for part in effect.sets.values())


def test_an_effect_without_controls_cannot_be_built() -> None:
    before, answers, sets = ten_items()
    with pytest.raises(ValueError, match="without control sets"):
        effect_of(ZERO, before, EditedAnswers(answers.after, answers.controls[:0]), sets)
    effect = effect_of(ZERO, before, answers, sets)
    bare = replace(effect.sets["mirror"], controls=np.zeros(0))
    with pytest.raises(ValueError, match="mirror items of toy has no controls"):
        replace(effect, sets={**effect.sets, "mirror": bare})


@pytest.mark.parametrize("name", ["critical", "mirror", "all", "held_out"])
def test_an_effect_without_one_of_its_four_sets_cannot_be_built(name: str) -> None:
    effect = effect_of(ZERO, *ten_items())
    with pytest.raises(ValueError, match=name):
        replace(effect, sets={key: part for key, part in effect.sets.items() if key != name})


def test_an_effect_without_an_interval_cannot_be_built() -> None:
    effect = effect_of(ZERO, *ten_items())
    part = effect.sets["all"]
    with pytest.raises(ValueError, match="has no interval"):
        replace(effect, sets={**effect.sets, "all": replace(part, change=replace(part.change, low=float("nan")))})


def test_answers_on_other_items_are_refused() -> None:
    before, answers, sets = ten_items()
    with pytest.raises(ValueError, match="9 items were answered before the edit, 10 after"):
        effect_of(ZERO, before[:9], answers, sets)


def test_a_planted_effect_is_supported() -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.ones(200).bool()
    after = torch.rand(200, generator=generator) > 0.6
    controls = torch.rand(60, 200, generator=generator) > 0.1
    sets = ItemSets(torch.arange(200), torch.zeros(0, dtype=torch.long), torch.arange(100, 200))
    assert effect_of(ZERO, before, EditedAnswers(after, controls), sets).headline.verdict == "supported"
    assert effect_of(AMPLIFY, before, EditedAnswers(after, controls), sets).headline.verdict == "opposite"


def null_effect(seed: int, draws: int = 60, items: int = 500, choices: int = 4) -> Effect:
    """Base and RL differ by noise alone, and so does the edited model; controls are the same noise, drawn again."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, items, choices, generator=generator)

    knowledge = noise()
    base, tuned = ((knowledge + 0.6 * noise()) for _ in range(2))
    base_right, before = base.argmax(-1) == 0, tuned.argmax(-1) == 0

    def edited() -> EditedAnswers:
        shaken = (tuned + 0.6 * noise(draws + 1)).argmax(-1) == 0
        return EditedAnswers(shaken[0], shaken[1:])

    critical = (~base_right & before).nonzero().flatten()
    mirror = (base_right & ~before).nonzero().flatten()
    sets = ItemSets(critical, mirror, critical[::2])
    return effect_of(ZERO, before, edited(), sets, held_out=edited(), resamples=1000)


def test_pure_noise_looks_like_a_large_effect_on_critical_items_and_is_not_called_one() -> None:
    effects = [null_effect(seed) for seed in range(100)]
    raw = [effect.sets["critical"].change for effect in effects]
    # The trap: the raw change is large, and its interval excludes 0 every time.
    assert np.mean([change.value for change in raw]) < -0.25
    assert all(change.high < 0 for change in raw)
    assert abs(np.mean([effect.sets["all"].change.value for effect in effects])) < 0.02
    # Beside controls there is nothing.
    assert sum(effect.headline.verdict == "supported" for effect in effects) <= 5
    covers = [part.low <= 0 <= part.high for part in (effect.headline.beyond_controls for effect in effects)]
    assert np.mean(covers) >= 0.95 - 3 * (0.05 * 0.95 / 100) ** 0.5


def test_a_stored_effect_is_read_back_as_it_was(tmp_path: Path) -> None:
    before, answers, sets = ten_items()
    answers = replace(answers, others={"uniform alive": answers.controls})
    effect = effect_of(ZERO, before, answers, sets)
    save(effect.full_record(), tmp_path / "effect.json")
    assert load(FullEffectRecord, tmp_path / "effect.json") == effect.full_record()
