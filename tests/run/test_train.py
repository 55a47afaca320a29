"""The crosscoders of a run: what they read, how well they fit, and that they can be made again to the byte."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_study import changed, contents

from featdiff.crosscoder import BatchTopK, Crosscoder, ReLU
from featdiff.data.corpus import build_corpus
from featdiff.files import read_json
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan
from featdiff.run.results import HeldOutFit, fit_of, stream_of
from featdiff.run.train import _poor_fit, train
from featdiff.workflow.runner import run_verb


@pytest.mark.parametrize("name", ["joint", "base-rl", "dynamics-sft", "dynamics-rl"])
def test_each_crosscoder_is_the_one_that_the_study_asks_for(tiny: Plan, name: str) -> None:
    crosscoder = Crosscoder.load(tiny.run.path("crosscoders", name))
    assert crosscoder.models == tiny.crosscoders[name].models and crosscoder.features == 64
    assert isinstance(crosscoder.sparsity, ReLU if name == "base-rl" else BatchTopK)
    assert torch.allclose(crosscoder.W_dec.norm(dim=-1).sum(dim=1), torch.ones(64), atol=1e-5)  # the gauge
    scale = stream_of(tiny).scale
    assert crosscoder.scale.tolist() == pytest.approx([scale[model] for model in crosscoder.models])


def test_the_stream_accounts_for_every_token(tiny: Plan) -> None:
    stream = stream_of(tiny)
    counts = stream.counts
    assert counts.seen == counts.first_dropped + counts.sinks_dropped + counts.kept
    assert 5_900 <= counts.seen <= 6_000 and counts.seen % 64 == 0 and counts.first_dropped > 93
    assert stream.layers == 2 and stream.d_model == 32
    assert list(stream.scale) == ["base", "sft", "sft-1", "sft-2", "rl", "rl-1", "rl-2"]
    assert stream.scale["sft"] == stream.scale["sft-2"] != stream.scale["rl"]


def test_quality_is_that_of_the_held_out_tokens(tiny: Plan) -> None:
    """Second road: corpus, activations, what is kept and the ratio of sums, all by hand."""
    lineup = load_lineup(tiny, tuple(tiny.paths))
    _, held_out = build_corpus(tiny.study.corpus, lineup.tokenizer, seed=0)
    values = lineup.residuals(held_out.input_ids.long(), position_ids=held_out.position_ids)
    largest = torch.tensor(list(stream_of(tiny).largest_norm.values()))
    order = [lineup.names.index(name) for name in ("base", "sft", "sft-1", "sft-2", "rl", "rl-1", "rl-2")]
    kept = ~held_out.document_start & (values[:, :, order].norm(dim=-1) <= largest).all(dim=-1)
    values = values[kept][:, [lineup.names.index(name) for name in ("base", "sft", "rl")]].double()

    crosscoder = Crosscoder.load(tiny.run.path("crosscoders", "joint"))
    with torch.no_grad():
        codes = crosscoder.encode(values.float())
        error = (values - crosscoder.decode(codes).double()).square().sum(dim=(0, 2))
    explained = 1 - error / (values - values.mean(dim=0)).square().sum(dim=(0, 2))

    found = fit_of(tiny, "joint")
    assert found.tokens == len(values) and found.l0 == pytest.approx(float((codes > 0).sum() / len(values)))
    assert list(found.variance_explained.values()) == pytest.approx(explained.tolist(), abs=1e-4)
    assert min(explained) > 0.2  # it has learned something
    saved = load_file(tiny.run.path("crosscoders", "joint", "quality.safetensors"))
    assert torch.allclose(saved["mean"], values.mean(dim=0).float(), atol=1e-4)
    assert torch.allclose(saved["density"], (codes > 0).float().mean(dim=0), atol=1e-6)


def test_metrics_are_lines_at_the_steps_that_were_asked_for(tiny: Plan) -> None:
    lines = tiny.run.path("crosscoders", "joint", "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps[:3] == [1, 5, 10] and steps == sorted(steps)
    assert json.loads(lines[-1])["reconstruction"] < json.loads(lines[0])["reconstruction"]


def test_training_again_gives_the_same_bytes_and_leaves_no_checkpoint(tiny: Plan, tmp_path: Path) -> None:
    train(tiny, tmp_path)
    wanted = contents(tiny.run.path("crosscoders"))
    del wanted["stage.json"]
    assert contents(tmp_path) == wanted


def test_another_seed_gives_another_crosscoder(fresh: Plan, tiny: Plan, tmp_path: Path) -> None:
    train(Plan(changed(fresh.study, seed=1)), tmp_path)
    weights = Path("joint", "crosscoder.safetensors")
    assert (tmp_path / weights).read_bytes() != tiny.run.path("crosscoders", str(weights)).read_bytes()


@pytest.mark.parametrize(
    ("crosscoder", "explained", "l0", "faults"),
    [
        ("joint", (0.4, 0.0, 0.1), 12.0, []),
        ("joint", (0.4, -0.79, -0.1), 12.0, ["sft -0.79, rl -0.10"]),
        ("joint", (0.4, 0.3, 0.1), 18.0, []),  # a factor of 1.5, k = 12
        ("joint", (0.4, 0.3, 0.1), 18.1, ["L0 is 18 where k = 12"]),
        ("joint", (0.4, 0.3, 0.1), 7.9, ["L0 is 8 where k = 12"]),
        ("joint", (-0.01, 0.3, 0.1), 503.0, ["base -0.01", "L0 is 503 where k = 12"]),
        ("base-rl", (0.4, 0.3, 0.1), 503.0, []),  # ReLU has no k
    ],
)
def test_a_fit_is_poor_below_no_dictionary_or_far_from_k(
    fresh: Plan, crosscoder: str, explained: tuple[float, ...], l0: float, faults: list[str]
) -> None:
    fit = HeldOutFit(dict(zip(("base", "sft", "rl"), explained, strict=True)), l0, dead_share=0.0, tokens=100)
    said = _poor_fit(crosscoder, fresh.crosscoders[crosscoder], fit)
    assert all(fault in said for fault in faults) and bool(said) == bool(faults)


def test_a_poor_fit_stops_after_measuring_and_goes_on_when_told_without_training_again(
    fresh: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = changed(fresh.study, training__accept_poor_fit=False)
    with pytest.raises(ValueError, match=r"crosscoder joint: .*accept_poor_fit = true") as refused:
        run_verb(strict, "train")
    place = fresh.run.path("crosscoders.partial")
    assert str(place) in str(refused.value)
    l0 = read_json(place / "joint" / "quality.json")["l0"]
    assert l0 > 1.5 * 12 and f"L0 is {l0:.0f} where k = 12" in str(refused.value)

    trained = (place / "joint" / "crosscoder.safetensors").read_bytes()
    monkeypatch.setattr("featdiff.run.train.train_crosscoders", None)  # to train again would fail
    folder = run_verb(fresh.study, "train")
    assert (folder / "joint" / "crosscoder.safetensors").read_bytes() == trained
    assert "warning: too poor a fit" in capsys.readouterr().err
