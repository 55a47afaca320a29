"""Quality on the evaluation prompts: each item once, with its right answer."""

import pytest
import torch

from featdiff.analyses.quality.compute import prompt_parts, quality
from featdiff.crosscoder import Crosscoder
from featdiff.evaluation.results import TaskResult
from featdiff.files import load, read_json
from featdiff.models.loading import load_model, load_tokenizer
from featdiff.run.evaluation import longest_read, requests_of
from featdiff.run.held_out import calibration_of, held_out_corpus
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan
from featdiff.run.results import HeldOutFit, fit_of, stream_of


def right_rows(plan: Plan) -> list[list[int]]:
    """Token ids of every item of every task with its right answer."""
    tokenizer = load_tokenizer(plan.paths["base"])
    samples = [
        sample
        for task in ("colours", "animals", "numbers")
        for sample in TaskResult.load(plan.run.path("evaluation", "base", f"{task}.parquet")).samples
    ]
    return [tokenizer(s.prompt + s.target_text)["input_ids"] for s in samples]


def test_only_crosscoders_of_base_and_tuned_models_are_measured(tiny: Plan) -> None:
    assert sorted(p.stem for p in tiny.run.path("quality").glob("*.json")) == ["base-rl", "joint", "stage"]


def test_fit_is_that_on_the_right_answers_and_their_prompts_without_first_tokens(tiny: Plan) -> None:
    lineup = load_lineup(tiny, tiny.models)
    values = torch.cat([lineup.residuals(torch.tensor([row]))[0, 1:] for row in right_rows(tiny)])
    largest = stream_of(tiny).largest_norm
    values = values[(values.norm(dim=-1) <= torch.tensor([largest[m] for m in lineup.names])).all(dim=-1)]
    crosscoder = Crosscoder.load(tiny.run.path("crosscoders", "joint"))
    with torch.no_grad():
        codes = crosscoder.encode(values)
        error = (values - crosscoder.decode(codes)).double().square().sum(dim=(0, 2))
    explained = 1 - error / (values - values.mean(dim=0)).double().square().sum(dim=(0, 2))

    found = load(HeldOutFit, tiny.run.path("quality", "joint.json"))
    assert found.tokens == len(values)
    assert found.l0 == pytest.approx(float((codes > 0).sum() / len(values)), rel=1e-3)
    assert list(found.variance_explained.values()) == pytest.approx(explained.tolist(), abs=1e-3)


def test_the_summary_shows_it_beside_the_held_out_text(tiny: Plan) -> None:
    quality = read_json(tiny.run.path("summary.json"))["quality"]
    assert quality["joint"]["evaluation_prompts"] == read_json(tiny.run.path("quality", "joint.json"))
    assert "evaluation_prompts" not in quality["dynamics-rl"]
    assert quality["joint"].keys() - quality["joint"]["evaluation_prompts"].keys() == {"evaluation_prompts"}


def test_a_notebook_measures_what_training_recorded(tiny: Plan) -> None:
    lineup, crosscoder = load_lineup(tiny, tiny.harvested), Crosscoder.load(tiny.run.path("crosscoders", "joint"))
    found = quality(
        crosscoder,
        lineup,
        held_out_corpus(tiny),
        lambda name: load_model(tiny.paths[name]),
        calibration=calibration_of(tiny, lineup.names),
        settings=tiny.study.activations,
    )
    assert found == fit_of(tiny, "joint")


def test_a_row_that_fills_the_models_window_loses_its_first_token(own: Plan) -> None:
    """The longest item in a window that lacks one token for it."""
    longest = max(map(len, right_rows(own))) - 1
    lineup = load_lineup(own, ("base",))
    lineup.models[0].config.max_position_embeddings = longest
    assert longest_read(lineup) == longest
    parts = prompt_parts(requests_of(own, "animals", lineup), longest, 16)
    assert max(part.input_ids.shape[1] for part in parts) <= longest
    assert sum(len(part.input_ids) for part in parts) == 48
