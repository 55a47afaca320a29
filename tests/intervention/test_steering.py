"""Ways to change a base while it scores: no-ops change nothing, two roads agree, a planted neuron moves accuracy."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from tiny_lineup import WIDTH, random_crosscoder, random_requests, tiny_lineup, tiny_model
from torch import Tensor

from featdiff.intervention.edited_model import EditedModel
from featdiff.intervention.edits import Edit
from featdiff.intervention.neuron_edits import NeuronEdit, NeuronStatistics, most_moved, set_to_means
from featdiff.intervention.scoring import correctness, score
from featdiff.intervention.steering import (
    EditingMethod,
    NeuronEditedModel,
    SteeredModel,
    UneditedModel,
    everywhere,
    prompt_end_states,
    score_methods,
    text_logits,
)
from featdiff.models.loading import PreTrainedModel
from featdiff.models.neurons import neurons_per_block, outlets
from featdiff.models.partial_model import UpperModel

REQUESTS = random_requests(samples=12)
TEXT = torch.randint(1, 40, (2, 9), generator=torch.Generator().manual_seed(3))


def neuron_edit(model: PreTrainedModel, value: float = 9.0) -> NeuronEditedModel:
    return NeuronEditedModel(model, NeuronEdit(torch.tensor([3, 40, 41, 100]), torch.full((4,), value)))


def test_without_an_edit_scores_are_those_of_the_model_up_to_the_tap_and_above() -> None:
    lineup, model = tiny_lineup(), tiny_model()
    wanted = score(REQUESTS, lineup, UpperModel(model, 2), random_crosscoder(), "base", [])
    found = score_methods(REQUESTS, model, [UneditedModel(model), SteeredModel(model, 2, torch.zeros(WIDTH))])
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1:], found[:1].expand(2, -1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", ["all", "prompt", "last_prompt", "generated"])
def test_shared_contexts_score_an_edit_as_rows_of_their_own_do(positions) -> None:
    model = tiny_model()
    ways = [replace(neuron_edit(model), positions=positions), SteeredModel(model, 2, torch.ones(WIDTH), positions)]
    together = score_methods(REQUESTS, model, ways)
    for sample in (0, 5):
        for request in (REQUESTS.sample_of == sample).nonzero().flatten().tolist():
            context, answer = REQUESTS.context_ids[request], REQUESTS.continuation_ids[request]
            ids = torch.tensor([context + answer[:-1]])
            for row, way in enumerate(ways, 1):
                with way.running(torch.tensor([len(context)]), torch.ones_like(ids, dtype=torch.bool)) as running:
                    logits = running(input_ids=ids, use_cache=False).logits[0, len(context) - 1 :].log_softmax(dim=-1)
                alone = logits[torch.arange(len(answer)), torch.tensor(answer)].sum()
                assert together[row, request] == pytest.approx(float(alone), rel=1e-3, abs=1e-3)


def test_a_model_with_windows_is_scored_row_by_row() -> None:
    model = tiny_model("windows")
    (plain, again) = score_methods(REQUESTS, model, [UneditedModel(model)])
    torch.testing.assert_close(plain, again)


def ways_of(model: PreTrainedModel) -> Sequence[EditingMethod]:
    features = EditedModel(model, tiny_lineup(), random_crosscoder(), "base", (Edit(torch.tensor([1, 2]), 3.0),))
    return [features, SteeredModel(model, 2, torch.ones(WIDTH)), neuron_edit(model), UneditedModel(tiny_model(seed=2))]


def test_prompt_ends_are_those_of_each_prompt_alone() -> None:
    model = tiny_model()
    for way in ways_of(model):
        together = prompt_end_states(way, REQUESTS, batch_size=5)
        for sample in range(3):
            alone = prompt_end_states(way, REQUESTS.select(torch.tensor([sample])))
            torch.testing.assert_close(alone.neurons[0], together.neurons[sample], rtol=1e-3, atol=1e-3)
            assert alone.in_form[0] == together.in_form[sample]


def test_edits_at_the_tap_leave_the_neurons_below_alone() -> None:
    model = tiny_model()
    below, base = 2 * neurons_per_block(model), prompt_end_states(UneditedModel(model), REQUESTS).neurons
    for way in ways_of(model)[:2]:
        found = prompt_end_states(way, REQUESTS).neurons
        torch.testing.assert_close(found[:, :below], base[:, :below])
        assert not torch.allclose(found[:, below:], base[:, below:])


def test_text_is_touched_everywhere_whatever_the_positions() -> None:
    model = tiny_model()
    plain = text_logits(UneditedModel(model), TEXT)
    for way in ways_of(model)[:3]:
        narrow = way if isinstance(way, EditedModel | UneditedModel) else replace(way, positions="generated")
        torch.testing.assert_close(text_logits(narrow, TEXT), text_logits(everywhere(way), TEXT))
        assert not torch.allclose(text_logits(narrow, TEXT), plain)


def test_the_features_of_a_way_score_as_edits_of_features_do() -> None:
    """A second road: the whole model with its lineup beside it, against the half above the tap."""
    model, lineup, crosscoder = tiny_model(), tiny_lineup(), random_crosscoder()
    edit = Edit(torch.tensor([1, 2]), 3.0)
    way = EditedModel(model, lineup, crosscoder, "base", (edit,))
    scores = score(REQUESTS, lineup, UpperModel(model, 2), crosscoder, "base", [edit])[1]
    request = 0
    context, answer = REQUESTS.context_ids[request], REQUESTS.continuation_ids[request]
    logits = text_logits(way, torch.tensor([context + answer[:-1]]))[0, len(context) - 1 :].log_softmax(dim=-1)
    assert float(logits[torch.arange(len(answer)), torch.tensor(answer)].sum()) == pytest.approx(
        float(scores[request]), rel=1e-3
    )


PLANTED = 40
"""A neuron of the second block."""


def tuned(model: PreTrainedModel) -> PreTrainedModel:
    """The base with one neuron always far up, by a bias of its own."""
    copy = tiny_model()
    outlet = outlets(copy)[1]

    def lift(module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        changed = arguments[0].clone()
        changed[..., PLANTED - 32] = 25.0
        return (changed,)

    outlet.register_forward_pre_hook(lift)
    return copy


def test_a_planted_neuron_carries_the_behaviour_over() -> None:
    model = tiny_model()
    there, here = (
        prompt_end_states(UneditedModel(tuned(model)), REQUESTS).neurons,
        prompt_end_states(UneditedModel(model), REQUESTS).neurons,
    )
    found = most_moved(NeuronStatistics.of(here).shift(there), 1, torch.ones(here.shape[1], dtype=torch.bool))
    assert found.tolist() == [PLANTED]
    changed = tuned(model)
    wanted = score_methods(REQUESTS, changed, [])[0]
    requests = replace(REQUESTS, target=_predicted(wanted))
    right = correctness(
        score_methods(requests, model, [NeuronEditedModel(model, set_to_means(found, there))]), requests
    )
    assert right[1].all() and not right[0].all()


def _predicted(log_likelihood: Tensor) -> Tensor:
    return log_likelihood.view(12, 4).argmax(dim=1)
