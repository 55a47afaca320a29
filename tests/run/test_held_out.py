"""The held-out text that a run keeps is the one that its crosscoders were measured on."""

import pytest
import torch

from featdiff.data.corpus import build_corpus
from featdiff.models.loading import load_tokenizer
from featdiff.run.held_out import calibration_of, held_out_activations, held_out_corpus
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan
from featdiff.run.results import fit_of, stream_of


def test_it_is_what_the_corpus_holds_out(tiny: Plan) -> None:
    _, wanted = build_corpus(tiny.study.corpus, load_tokenizer(tiny.paths["base"]), seed=0)
    found = held_out_corpus(tiny)
    assert torch.equal(found.input_ids, wanted.input_ids) and torch.equal(found.document_start, wanted.document_start)


def test_activations_are_those_that_quality_was_measured_on_up_to_a_limit(tiny: Plan) -> None:
    lineup = load_lineup(tiny, ("base", "rl"))
    some = sum(len(batch.values) for batch in held_out_activations(tiny, lineup, 100))
    whole = sum(len(batch.values) for batch in held_out_activations(tiny, load_lineup(tiny, tiny.harvested), 10**6))
    assert some == 100
    assert whole == fit_of(tiny, "joint").tokens


def test_sinks_and_scales_are_those_of_training(tiny: Plan) -> None:
    found = calibration_of(tiny, ("base", "rl"))
    stream = stream_of(tiny)
    assert found.scale.tolist() == pytest.approx([stream.scale[name] for name in ("base", "rl")])
    assert found.largest_norm.tolist() == pytest.approx([stream.largest_norm[name] for name in ("base", "rl")])


def test_a_damaged_file_is_named_in_one_line(own: Plan) -> None:
    own.run.path("crosscoders", "held_out.safetensors").write_bytes(b"spoilt")
    with pytest.raises(ValueError, match=r"held_out\.safetensors is damaged .*; delete .* and run again") as raised:
        held_out_corpus(own)
    assert "\n" not in str(raised.value)
