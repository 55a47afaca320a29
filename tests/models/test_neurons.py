"""Neurons by structure: what is read is what the projection is given, what is set is what it reads."""

import pytest
import torch
from tiny_lineup import ARCHITECTURES, BLOCKS, VOCABULARY, WIDTH, tiny_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from featdiff.models.neurons import (
    neurons_per_block,
    outlets,
    reading_neurons,
    setting_neurons,
    shifting_residual,
)

IDS = torch.randint(1, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(0))
EVERYWHERE = torch.ones_like(IDS, dtype=torch.bool)
NAMES = {"gpt2": ("mlp.c_proj", 64), "gpt_neox": ("mlp.dense_4h_to_h", 32)}


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_block_has_its_projection_whatever_it_is_called(architecture: str) -> None:
    model = tiny_model(architecture)
    name, width = NAMES.get(architecture, ("mlp.down_proj", 32))
    wanted = [module for path, module in model.named_modules() if path.endswith(name)]
    assert len(wanted) == BLOCKS and all(a is b for a, b in zip(outlets(model), wanted, strict=True))
    assert neurons_per_block(model) == width


def test_a_mixture_of_experts_is_refused_in_one_line() -> None:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model("mixtral", vocab_size=VOCABULARY, num_key_value_heads=1, **sizes)
    with pytest.raises(ValueError, match=r"has 0 projections of an MLP in block 1.*ways.compare = false"):
        outlets(AutoModelForCausalLM.from_config(config))


def test_blocks_that_differ_in_width_are_refused() -> None:
    model = tiny_model()
    model.get_submodule("model.layers.1.mlp").down_proj = nn.Linear(31, WIDTH)
    with pytest.raises(ValueError, match="differ in width"):
        outlets(model)


def test_neurons_are_what_the_projection_is_given() -> None:
    model, given = tiny_model(), list[Tensor]()
    handles = [
        outlet.register_forward_hook(lambda _, inputs, output: given.append(inputs[0])) for outlet in outlets(model)
    ]
    place = torch.tensor([6, 2, 0])
    with reading_neurons(model, place) as seen:
        logits(model)
    for handle in handles:
        handle.remove()
    assert len(seen) == BLOCKS
    for read, whole in zip(seen, given, strict=True):
        assert torch.equal(read, whole[torch.arange(3), place])


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_neurons_set_to_their_own_values_change_nothing(architecture: str) -> None:
    model, before = tiny_model(architecture), logits(tiny_model(architecture))
    with reading_neurons(model, torch.tensor([6, 6, 6])) as seen:
        logits(model)
    width, neurons = neurons_per_block(model), torch.tensor([1, 5, 40, 70])
    own = torch.cat(seen, dim=-1)[0, neurons]
    only = torch.zeros_like(EVERYWHERE)
    only[0, 6] = True
    with setting_neurons(model, neurons, own, only):
        assert torch.equal(logits(model), before)
    with setting_neurons(model, neurons, own + 1, only):
        changed = (logits(model) != before).any(dim=-1)
    assert changed[0, 6] and changed.sum() == 1 and width in (32, 64)
    assert torch.equal(logits(model), before), "afterwards the model is as it was"


def test_an_edit_shows_to_what_is_read_after_it_and_to_the_blocks_above() -> None:
    model, value = tiny_model(), torch.tensor([7.0])
    with reading_neurons(model, torch.tensor([6, 6, 6])) as before:
        logits(model)
    last = torch.tensor([6, 6, 6])
    with setting_neurons(model, torch.tensor([32 + 3]), value, EVERYWHERE), reading_neurons(model, last) as seen:
        logits(model)
    assert (seen[1][:, 3] == 7).all()
    assert torch.equal(seen[0], before[0]) and not torch.equal(seen[2], before[2])


def test_a_shift_by_nothing_is_a_bitwise_no_op_and_padding_is_never_shifted() -> None:
    model, before = tiny_model(), logits(tiny_model())
    with shifting_residual(model, 2, torch.zeros(WIDTH), EVERYWHERE):
        assert torch.equal(logits(model), before)
    mask = EVERYWHERE.clone()
    mask[1] = False
    with shifting_residual(model, 2, torch.ones(WIDTH), mask):
        after = logits(model)
    assert torch.equal(after[1], before[1]) and not torch.equal(after[0], before[0])
