"""The strongest contexts of a feature: against all tokens by hand, and whatever way the text is cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from featdiff.attribution.examples import Passages, top_examples
from featdiff.crosscoder.model import Crosscoder

TRIO = ("base", "sft", "rl")
TOKENS, DOCUMENTS = 120, 17


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def crosscoder_and_text(seed: int = 0) -> tuple[Crosscoder, Tensor, Tensor]:
    """An untrained crosscoder with biases and unequal scales, tokens, and the document of each."""
    crosscoder = Crosscoder(TRIO, d_model=4, features=6, seed=seed, decoder_init_norm=0.7)
    with torch.no_grad():
        crosscoder.b_enc.copy_(0.2 * draw(6, seed=seed + 1))
        crosscoder.scale.copy_(torch.tensor([0.5, 1.0, 3.0]))
    cuts = torch.randperm(TOKENS - 1, generator=torch.Generator().manual_seed(seed))[: DOCUMENTS - 1] + 1
    starts = torch.zeros(TOKENS, dtype=torch.long).index_fill_(0, cuts, 1)
    return crosscoder, draw(TOKENS, 3, 4, seed=seed + 2) * crosscoder.scale[:, None], starts.cumsum(0)


def passages(values: Tensor, document: Tensor, sizes: list[int], shift: int = 0) -> list[Passages]:
    place = torch.arange(len(values)) + shift
    return [Passages(TRIO, *part) for part in zip(*(t.split(sizes) for t in (values, place, document)), strict=True)]


def by_hand(excited: Tensor, document: Tensor, top: int) -> list[tuple[float, int]]:
    best = [max((float(excited[i]), -i) for i in range(len(excited)) if document[i] == d) for d in range(DOCUMENTS)]
    return [(value, -place) for value, place in sorted(best, reverse=True) if value > 0][:top]


def test_the_places_are_those_that_looking_at_every_token_finds() -> None:
    crosscoder, values, document = crosscoder_and_text()
    features, mean = torch.tensor([4, 1, 5]), draw(3, 4, seed=9)
    found = top_examples(crosscoder, passages(values, document, [TOKENS], shift=1000), features, mean, top=5)

    joint = crosscoder.encode(values)
    centred = (values - mean) / crosscoder.scale[:, None]
    drives = torch.einsum("tmd,mdf->tmf", centred, crosscoder.W_enc)
    assert found.readings == ("joint", *TRIO) and found.features.tolist() == [4, 1, 5] and found.tokens == TOKENS
    for column, feature in enumerate(features.tolist()):
        for reading, excited in enumerate([joint, *drives.unbind(dim=1)]):
            wanted = by_hand(excited[:, feature].detach(), document, 5)
            value, place = found.value[reading, column].tolist(), found.place[reading, column].tolist()
            assert place == [1000 + place for _, place in wanted] + [-1] * (5 - len(wanted))
            assert value == pytest.approx([value for value, _ in wanted] + [0.0] * (5 - len(wanted)), rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20), cut=st.integers(1, DOCUMENTS - 1))
def test_cutting_the_text_between_documents_changes_nothing(seed: int, cut: int) -> None:
    crosscoder, values, document = crosscoder_and_text(seed)
    features, mean, first = torch.arange(6), torch.zeros(3, 4), int((document < cut).sum())
    whole = top_examples(crosscoder, passages(values, document, [TOKENS]), features, mean, top=4)
    parts = top_examples(crosscoder, passages(values, document, [first, TOKENS - first]), features, mean, top=4)
    assert torch.equal(whole.place, parts.place)
    torch.testing.assert_close(whole.value, parts.value)


def test_drives_of_all_models_sum_to_what_lifts_the_joint_reading_above_the_mean_token() -> None:
    crosscoder, values, _ = crosscoder_and_text()
    mean, one = draw(3, 4, seed=9), values[:1]
    found = top_examples(crosscoder, [Passages(TRIO, one, torch.tensor([0]), torch.tensor([0]))], torch.arange(6), mean)
    lifted = (crosscoder.pre_activations(one) - crosscoder.pre_activations(mean[None]))[0]
    positive = found.value[1:, :, 0]
    assert (positive.sum(dim=0) >= lifted - 1e-5).all()  # negative drives are no examples
    alone = (positive > 0).all(dim=0)
    torch.testing.assert_close(positive.sum(dim=0)[alone], lifted[alone].detach())


def test_a_feature_that_nothing_excites_has_no_place() -> None:
    crosscoder, values, document = crosscoder_and_text()
    with torch.no_grad():
        crosscoder.W_enc.zero_()
        crosscoder.b_enc.fill_(-1.0)
    found = top_examples(crosscoder, passages(values, document, [TOKENS]), torch.arange(2), torch.zeros(3, 4))
    assert (found.place == -1).all() and (found.value == 0).all()


def test_nothing_to_read_is_an_error() -> None:
    crosscoder, _, _ = crosscoder_and_text()
    with pytest.raises(ValueError, match="no tokens to look for examples in"):
        top_examples(crosscoder, [], torch.arange(2), torch.zeros(3, 4))
