import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tiny_crosscoders import KINDS, World, sparsity_of
from torch import Tensor

from featdiff.crosscoder.design import MLP, Design, Linear, Procrustes, Shared, design_from, design_record
from featdiff.crosscoder.kernels.ranks import Alone
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.objectives import Cosine, DeltaMSE
from featdiff.crosscoder.sparsity import ReLU
from featdiff.crosscoder.step import Learner

MODELS = ("base", "sft", "rl")
WORLD = World(features=60, d_model=8)
NOTHING: Mapping[str, float] = {}
FULL = Design(DeltaMSE(-0.25), MLP(7), Procrustes(99), Shared(3, 0.2), {"rl": 0.1})


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp(sparsity: str = "relu", width: int = 7, partition: Mapping[str, float] = NOTHING) -> Crosscoder:
    """One whose hidden layer has a say."""
    design = Design(encoder=MLP(width), partition=partition)
    made = WORLD.crosscoder(sparsity_of(sparsity, 8), 8, wild=False, design=design)
    assert made.W_hidden is not None and made.b_hidden is not None
    with torch.no_grad():
        made.W_hidden.copy_(normal(width, 60, seed=3))
        made.b_hidden.copy_(normal(width, seed=4))
    return made


@pytest.mark.parametrize("design", [Design(), FULL, Design(Cosine())])
def test_a_record_gives_the_design_back(design: Design) -> None:
    assert design_from(design_record(design)) == design


def test_what_no_design_can_be_is_refused() -> None:
    with pytest.raises(ValueError, match="width must be at least 1"):
        MLP(0)
    with pytest.raises(ValueError, match="tokens must be at least 2"):
        Procrustes(1)
    with pytest.raises(ValueError, match="ratio above 0 and at most 1"):
        Shared(3, 0.0)
    for part, message in (("encoder", "'linear' or 'mlp'"), ("align", "'none' or 'procrustes'"), ("shared", "a ratio")):
        with pytest.raises(ValueError, match=message):
            design_from({**design_record(Design()), part: {"kind": "other"}})
    with pytest.raises(ValueError, match="is missing"):
        design_from({})


def test_an_mlp_begins_as_the_linear_encoder() -> None:
    linear, made = Crosscoder(MODELS, 8, 60), Crosscoder(MODELS, 8, 60, design=Design(encoder=MLP(7)))
    assert torch.equal(made.encode(normal(9, 3, 8)), linear.encode(normal(9, 3, 8)))
    assert made.W_in is not None and float(made.W_in.detach().std()) == pytest.approx(1 / math.sqrt(24), rel=0.2)


def test_an_mlp_encodes_by_its_equation_and_a_branch_by_its_own_part() -> None:
    made, values = mlp(), normal(9, 3, 8)
    assert made.W_in is not None and made.b_hidden is not None and made.W_hidden is not None
    scaled = values / made.scale[:, None]
    for models, found in (((0, 1, 2), made.encode(values)), ((2,), made.encode_branch(values[:, 2], "rl"))):
        pre, hidden = made.b_enc, made.b_hidden
        for m in models:
            pre, hidden = pre + scaled[:, m] @ made.W_enc[m], hidden + scaled[:, m] @ made.W_in[m]
        torch.testing.assert_close(found, torch.relu(pre + torch.relu(hidden) @ made.W_hidden))


def test_the_gauge_changes_nothing_that_an_mlp_says() -> None:
    made, values = mlp("jumprelu"), normal(9, 3, 8)
    before, rebuilt = made.loss(values).total, made.decode(made.encode(values))
    made.canonicalise()
    torch.testing.assert_close(made.loss(values).total, before)
    torch.testing.assert_close(made.decode(made.encode(values)), rebuilt)


def test_a_folder_keeps_an_mlp_and_linear_ones_have_no_hidden_layer(tmp_path: Path) -> None:
    made = mlp()
    made.save(tmp_path)
    loaded = Crosscoder.load(tmp_path)
    assert loaded.design.encoder == MLP(7) and torch.equal(loaded.encode(normal(9, 3, 8)), made.encode(normal(9, 3, 8)))
    assert isinstance(Crosscoder(MODELS, 8, 60).design.encoder, Linear)
    assert not {"W_in", "b_hidden", "W_hidden"} & set(Crosscoder(MODELS, 8, 60).state_dict())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partition", [NOTHING, {"rl": 0.2}])
def test_all_parameters_of_an_mlp_learn_and_count_in_the_norm(kind: str, partition: Mapping[str, float]) -> None:
    made = mlp(kind, partition=partition)
    one = Learner(made, lr=1e-3, betas=(0.9, 0.999), clip=1.0)
    assert one.path == "reference"
    found = one.gradients(WORLD.activations(50, wild=False), 1.0)
    grads = {name: parameter.grad for name, parameter in one.parameters.items()}
    squares = [grad.double().square().sum() for name, grad in grads.items() if grad is not None and name != "b_dec"]
    assert float(found.square_norm) == pytest.approx(float(torch.stack(squares).sum()), rel=1e-6)
    before = {name: parameter.detach().clone() for name, parameter in one.parameters.items()}
    one.apply(found, 50, 1e-3)
    assert one.path == "reference"
    assert all(not torch.equal(before[name], parameter) for name, parameter in one.parameters.items())


class Two(Alone):
    count = 2


def test_an_mlp_trains_in_one_process() -> None:
    with pytest.raises(ValueError, match="the encoder mlp trains in one process"):
        Learner(mlp(), lr=1e-3, betas=(0.9, 0.999), clip=1.0, ranks=Two())


def test_the_public_constructor_stays() -> None:
    made = Crosscoder(models=("base", "sft", "rl"), d_model=16, features=64, sparsity=ReLU(weight=2.0), seed=0)
    assert made.design == Design() and made.blocks is None
