"""What a model still predicts from reconstructions: all of it from perfect ones, nothing from the mean."""

import pytest
import torch
from torch import Tensor

from featdiff.activations.stream import Calibration
from featdiff.crosscoder import Crosscoder, ReLU
from featdiff.crosscoder.metrics import NO_LABEL
from featdiff.data.corpus import Corpus
from featdiff.models.loading import Lineup, PreTrainedModel, load_model
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan
from featdiff.run.results import HeldOutFit
from featdiff.run.splice import Harvested, harvest, held_out_fits, packed_parts, recovered

MODELS = ("base", "rl")
BUFFER = 1024
D_MODEL = 32


@pytest.fixture(scope="module")
def lineup(tiny: Plan) -> Lineup:
    return load_lineup(tiny, MODELS)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    ids = torch.randint(3, 500, (6, 20), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    start = torch.zeros(6, 20, dtype=torch.bool)
    start[:, [0, 7]] = True
    return Corpus(ids, start)


@pytest.fixture(scope="module")
def harvested(lineup: Lineup, corpus: Corpus) -> list[Harvested]:
    return harvest(lineup, unlimited(), packed_parts(corpus, 16), BUFFER)


def splice(
    tiny: Plan, lineup: Lineup, crosscoder: Crosscoder, mean: Tensor, harvested: list[Harvested]
) -> dict[str, dict[str, float]]:
    """CE and KL recovered, by model."""
    losses = recovered(lineup, crosscoder, mean, harvested, lambda name: load_model(tiny.paths[name]))
    return {
        "ce_recovered": {name: one.ce_recovered for name, one in losses.items()},
        "kl_recovered": {name: one.kl_recovered for name, one in losses.items()},
    }


def unlimited() -> Calibration:
    return Calibration(MODELS, torch.full((2,), torch.inf), torch.ones(2))


def identity() -> Crosscoder:
    """f = relu(+a), relu(-a) for each entry of each model; decoding gives a back."""
    crosscoder = Crosscoder(models=MODELS, d_model=D_MODEL, features=4 * D_MODEL, sparsity=ReLU(weight=0.0), seed=0)
    eye = torch.eye(2 * D_MODEL).view(2 * D_MODEL, 2, D_MODEL)
    signed = torch.cat([eye, -eye])
    with torch.no_grad():
        crosscoder.W_enc.copy_(signed.permute(1, 2, 0))
        crosscoder.W_dec.copy_(signed)
        crosscoder.b_enc.zero_()
        crosscoder.b_dec.zero_()
    return crosscoder


def test_labels_are_the_next_tokens_of_the_same_document(corpus: Corpus) -> None:
    (part,) = packed_parts(corpus, 16)
    assert part.labels[:, -1].tolist() == [NO_LABEL] * 6 and part.labels[:, 6].tolist() == [NO_LABEL] * 6
    others = [position for position in range(19) if position != 6]
    assert torch.equal(part.labels[:, others], corpus.input_ids[:, [position + 1 for position in others]].long())
    assert part.position_ids is not None and part.position_ids[0].tolist() == [*range(7), *range(13)]
    assert torch.equal(part.replaceable, ~corpus.document_start)


def test_rows_are_read_in_batches_and_as_many_as_fit_the_buffer(lineup: Lineup, corpus: Corpus) -> None:
    parts = packed_parts(corpus, 1)
    assert [len(part.input_ids) for part in parts] == [1] * 6
    assert len(harvest(lineup, unlimited(), parts, 1)) == 6  # 6 x 20 tokens x 2 models x 32 x 4 bytes = 30 KiB
    many = parts * 40  # 4,800 tokens; 1 MiB holds 4,096
    assert len(harvest(lineup, unlimited(), many, 1)) == 4096 // 20


def test_residuals_are_those_of_the_lineup_with_attention_inside_documents(
    lineup: Lineup, corpus: Corpus, harvested: list[Harvested]
) -> None:
    alone = lineup.residuals(corpus.input_ids[:1, 7:].long())
    torch.testing.assert_close(harvested[0].residuals[:1, 7:], alone, rtol=1e-4, atol=1e-4)


def test_starts_and_sinks_of_any_model_are_not_replaced(
    lineup: Lineup, corpus: Corpus, harvested: list[Harvested]
) -> None:
    assert torch.equal(harvested[0].keep, ~corpus.document_start)
    norms = harvested[0].residuals.norm(dim=-1)
    limit = norms.flatten(0, 1).median(dim=0).values
    (one,) = harvest(lineup, Calibration(MODELS, limit, torch.ones(2)), packed_parts(corpus, 16), BUFFER)
    assert torch.equal(one.keep, ~corpus.document_start & (norms <= limit).all(dim=-1))
    assert one.keep.any() and not one.keep.all()


def test_a_perfect_reconstruction_recovers_everything(tiny: Plan, lineup: Lineup, harvested: list[Harvested]) -> None:
    found = splice(tiny, lineup, identity(), torch.zeros(2, D_MODEL), harvested)
    assert found["ce_recovered"] == pytest.approx({"base": 1.0, "rl": 1.0}, abs=1e-4)
    assert found["kl_recovered"] == pytest.approx({"base": 1.0, "rl": 1.0}, abs=1e-4)


def test_the_mean_recovers_nothing(tiny: Plan, lineup: Lineup, harvested: list[Harvested]) -> None:
    kept = torch.cat([one.residuals[one.keep] for one in harvested])
    crosscoder = identity()
    with torch.no_grad():
        crosscoder.W_dec.zero_()
        crosscoder.b_dec.copy_(kept.mean(dim=0))
    found = splice(tiny, lineup, crosscoder, kept.mean(dim=0), harvested)
    assert found["ce_recovered"] == pytest.approx({"base": 0.0, "rl": 0.0}, abs=1e-6)
    assert found["kl_recovered"] == pytest.approx({"base": 0.0, "rl": 0.0}, abs=1e-6)


def test_each_model_is_spliced_with_its_own_part_of_the_reconstruction(
    tiny: Plan, lineup: Lineup, harvested: list[Harvested]
) -> None:
    crosscoder = identity()
    with torch.no_grad():
        crosscoder.W_dec[:, 1] = 0.0  # nothing of rl is decoded
    found = splice(tiny, lineup, crosscoder, torch.zeros(2, D_MODEL), harvested)
    assert found["kl_recovered"] == pytest.approx({"base": 1.0, "rl": 0.0}, abs=1e-4)


def test_fewer_rows_at_a_time_give_the_same_numbers(
    tiny: Plan, lineup: Lineup, harvested: list[Harvested], monkeypatch: pytest.MonkeyPatch
) -> None:
    crosscoder = identity()
    with torch.no_grad():
        crosscoder.W_dec.mul_(0.7)
    mean = torch.stack([one.residuals[one.keep].mean(dim=0) for one in harvested]).mean(dim=0)
    together = splice(tiny, lineup, crosscoder, mean, harvested)
    asked: list[tuple[int, int]] = []

    def one_row(positions: int, vocabulary: int) -> int:
        asked.append((positions, vocabulary))
        return 1

    monkeypatch.setattr("featdiff.run.splice.rows_at_once", one_row)
    apart = splice(tiny, lineup, crosscoder, mean, harvested)
    assert set(asked) == {(20, 512)}
    for key in ("ce_recovered", "kl_recovered"):
        assert apart[key] == pytest.approx(together[key], rel=1e-4)
        assert apart[key] != pytest.approx({"base": 1.0, "rl": 1.0}, abs=1e-3)


def test_the_fit_of_several_crosscoders_is_that_of_each_and_only_those_named_are_spliced(
    tiny: Plan, lineup: Lineup, corpus: Corpus
) -> None:
    twins = {"one": identity(), "other": identity()}
    settings = tiny.study.activations

    def load(name: str) -> PreTrainedModel:
        return load_model(tiny.paths[name])

    found = held_out_fits(twins, lineup, corpus, unlimited(), settings, load, spliced=("other",))
    assert found["one"][1] == HeldOutFit.of(found["one"][0]) and found["one"][1].ce_recovered is None
    assert found["other"][1].variance_explained == pytest.approx({"base": 1.0, "rl": 1.0}, abs=1e-5)
    assert found["other"][1].ce_recovered == pytest.approx({"base": 1.0, "rl": 1.0}, abs=1e-4)
    assert found["other"][1].tokens == 6 * 18  # two starts of documents in each row
    unspliced = held_out_fits(twins, lineup, corpus, unlimited(), settings, None, spliced=("other",))
    assert unspliced["other"][1].kl_recovered is None
