import pytest
import torch

from featdiff.crosscoder.sparsity import (
    BatchTopK,
    ReLU,
    Sparsity,
    auxiliary_features,
    inference_features,
    smallest_kept,
    sparsity_from,
    sparsity_record,
    training_features,
    updated_threshold,
    weighted_l1,
)

PRE = torch.tensor([[1.0, -1.0, 3.0], [2.0, 0.5, -4.0]])
NORMS = torch.tensor([1.0, 10.0, 0.5])


def test_relu_is_the_same_in_training_and_at_inference() -> None:
    wanted = torch.tensor([[1.0, 0.0, 3.0], [2.0, 0.5, 0.0]])
    assert torch.equal(training_features(ReLU(), PRE, NORMS), wanted)
    assert torch.equal(inference_features(ReLU(), PRE, NORMS, torch.tensor(9.0)), wanted)


def test_batch_top_k_ranks_by_contribution_and_not_by_activation() -> None:
    # contributions: 1, 0, 1.5 and 2, 5, 0; the two largest are 5 and 2, both of the second token
    kept = training_features(BatchTopK(k=1), PRE, NORMS)
    assert torch.equal(kept, torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.5, 0.0]]))


def test_the_threshold_decides_for_each_token_by_itself() -> None:
    kept = inference_features(BatchTopK(k=1), PRE, NORMS, torch.tensor(1.5))
    assert torch.equal(kept, torch.tensor([[0.0, 0.0, 3.0], [2.0, 0.5, 0.0]]))


def test_without_enough_positive_contributions_all_of_them_stay() -> None:
    assert torch.equal(training_features(BatchTopK(k=3), PRE, NORMS), torch.relu(PRE))
    assert not training_features(BatchTopK(k=3), -torch.ones(2, 3), NORMS).any()


def test_the_cut_is_the_smallest_contribution_that_stays() -> None:
    contributions = torch.tensor([[4.0, 0.0, 1.0], [3.0, 2.0, 0.0]])
    assert float(smallest_kept(contributions, 3)) == 2.0
    assert float(smallest_kept(contributions, 9)) == 1.0
    assert float(smallest_kept(torch.zeros(2, 2), 1)) == float("inf")


def test_the_threshold_starts_at_the_first_cut_and_follows_slowly() -> None:
    first = updated_threshold(torch.tensor(0.0), torch.tensor(2.0))
    assert float(first) == 2.0
    assert float(updated_threshold(first, torch.tensor(3.0))) == pytest.approx(2.01)
    assert float(updated_threshold(first, torch.tensor(float("inf")))) == 2.0


def test_the_penalty_is_weighed_by_decoder_norms() -> None:
    # (1 * 1 + 3 * 0.5 + 2 * 1 + 0.5 * 10) / 2 tokens
    assert float(weighted_l1(torch.relu(PRE), NORMS)) == pytest.approx(9.5 / 2)


def test_auxk_takes_the_strongest_dead_features_of_every_token() -> None:
    pre = torch.tensor([[5.0, 1.0, 2.0, 3.0], [5.0, -1.0, -2.0, 1.0]])
    dead = torch.tensor([False, True, True, True])
    chosen = auxiliary_features(pre, dead, 2)
    assert torch.equal(chosen, torch.tensor([[0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]]))


@pytest.mark.parametrize("sparsity", [ReLU(weight=0.5, warmup=0.2), BatchTopK(k=7, aux_k=3, dead_after_tokens=99)])
def test_a_sparsity_survives_its_record(sparsity: Sparsity) -> None:
    assert sparsity_from(sparsity_record(sparsity)) == sparsity


def test_settings_of_a_study_are_a_record() -> None:
    from featdiff.study import BatchTopKSettings, ReLUSettings

    assert sparsity_from(ReLUSettings(weight=3.0).model_dump()) == ReLU(weight=3.0)
    assert sparsity_from(BatchTopKSettings(k=5).model_dump()) == BatchTopK(k=5)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="sparsity kind 'topk' is unknown"):
        sparsity_from({"kind": "topk"})


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ValueError, match="weight must be 0 or more"):
        ReLU(weight=-1.0)
    with pytest.raises(ValueError, match="must be at least 1"):
        BatchTopK(k=0)
