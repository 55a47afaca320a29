import math
from pathlib import Path

import pytest
import torch
from tiny_crosscoders import KINDS, World, sparsity_of
from torch import Tensor

from featdiff.config.crosscoder import MLP, Cosine, DeltaMSE, Design, Linear, Procrustes, ReLU, Shared
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.step import Learner

MODELS = ("base", "sft", "rl")
WORLD = World(features=60, d_model=8)
NOTHING: dict[str, float] = {}
FULL = Design(
    objective=DeltaMSE(-0.25), encoder=MLP(7), align=Procrustes(99), shared=Shared(3, 0.2), partition={"rl": 0.1}
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp(sparsity: str = "relu", width: int = 7, partition: dict[str, float] = NOTHING) -> Crosscoder:
    """One whose hidden layer has a say."""
    design = Design(encoder=MLP(width), partition=partition)
    made = WORLD.crosscoder(sparsity_of(sparsity, 8), 8, wild=False, design=design)
    assert made.W_hidden is not None and made.b_hidden is not None
    with torch.no_grad():
        made.W_hidden.copy_(normal(width, 60, seed=3))
        made.b_hidden.copy_(normal(width, seed=4))
    return made


@pytest.mark.parametrize("design", [Design(), FULL, Design(objective=Cosine())])
def test_a_folder_gives_the_design_back(design: Design, tmp_path: Path) -> None:
    Crosscoder(MODELS, 8, 60, design=design).save(tmp_path)
    assert Crosscoder.load(tmp_path).design == design


def test_what_no_design_can_be_is_refused() -> None:
    for choice in ({"encoder": {"kind": "mlp", "width": 0}}, {"align": {"kind": "procrustes", "tokens": 1}}):
        with pytest.raises(ValueError, match="Input should be greater than"):
            Design.model_validate(choice)
    with pytest.raises(ValueError, match="Input should be greater than 0"):
        Shared(3, 0.0)
    for part in ("objective", "encoder", "align"):
        with pytest.raises(ValueError, match="Input tag 'other'"):
            Design.model_validate({part: {"kind": "other"}})


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
def test_all_parameters_of_an_mlp_learn_and_count_in_the_norm(kind: str, partition: dict[str, float]) -> None:
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


class Two(Ranks):
    count = 2


def test_an_mlp_trains_in_one_process() -> None:
    with pytest.raises(ValueError, match="the encoder mlp trains in one process"):
        Learner(mlp(), lr=1e-3, betas=(0.9, 0.999), clip=1.0, ranks=Two())


def test_the_public_constructor_stays() -> None:
    made = Crosscoder(models=("base", "sft", "rl"), d_model=16, features=64, sparsity=ReLU(weight=2.0), seed=0)
    assert made.design == Design() and made.blocks is None
