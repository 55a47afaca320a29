from pathlib import Path as Folder

import pytest
import torch
from tiny_crosscoders import World, assert_equal, sparsity_of
from torch import Tensor

from featdiff.attribution import model_attribution_score
from featdiff.config.crosscoder import BatchTopK, Design, JumpReLU, ReLU, Shared, Sparsity
from featdiff.crosscoder.feature_blocks import Blocks
from featdiff.crosscoder.kernels.borders import PATHS, Path
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.step import Learner

MODELS = ("base", "sft", "rl")
WORLD = World(features=240, d_model=13)  # rows whose length no vector register divides
DESIGN = Design(shared=Shared(20, 0.25), partition={"rl": 0.1, "base+sft": 0.05})
PARTITION = Design(partition=DESIGN.partition)


def design_of(kind: str) -> Design:
    return PARTITION if kind == "batchtopk" else DESIGN


def gradient(one: Learner, name: str) -> Tensor:
    found = one.parameters[name].grad
    assert found is not None
    return found


def test_features_are_set_apart_in_order() -> None:
    blocks = Blocks.of(MODELS, 10, Design(shared=Shared(2, 0.5), partition={"rl": 0.2, "base+sft": 0.1}))
    assert blocks is not None
    wanted = [[True] * 3] * 2 + [[False, False, True]] * 2 + [[True, True, False]] + [[True] * 3] * 5
    assert blocks.owned.tolist() == wanted
    assert blocks.shared.tolist() == [True] * 2 + [False] * 8
    assert blocks.price.tolist() == [0.5] * 2 + [1.0] * 8
    assert Blocks.of(MODELS, 10, Design()) is None


def test_rows_begin_as_the_blocks_want_them() -> None:
    made, plain = Crosscoder(MODELS, 6, 240, design=DESIGN), Crosscoder(MODELS, 6, 240)
    assert torch.equal(made.W_dec[:20], plain.W_dec[:20, :1].expand(-1, 3, -1))
    assert not made.W_dec[20:44, :2].any() and not made.W_enc[:2, :, 20:44].any()
    assert torch.equal(made.W_dec[44:56, :2], plain.W_dec[44:56, :2])
    assert torch.equal(made.W_dec[56:], plain.W_dec[56:])
    assert torch.equal(made.W_enc, made.W_dec.permute(1, 2, 0))


def test_what_autograd_says_is_the_mean_over_models_in_shared_rows_and_zero_where_a_model_lacks_the_feature() -> None:
    made = WORLD.crosscoder(ReLU(), 30, design=DESIGN).double()
    batch = WORLD.activations(50).double() * made.scale[:, None]
    made.loss(batch).total.backward()
    alone = Crosscoder(MODELS, WORLD.d_model, WORLD.features, ReLU()).double()
    alone.load_state_dict(made.state_dict())
    loss = alone.loss(batch)
    l1 = (alone.encode(batch)[:, :20] * alone.decoder_norms()[:20]).sum(dim=1).mean()
    (loss.total - 0.75 * 2.0 * l1).backward()  # shared features pay a quarter
    assert made.W_dec.grad is not None and alone.W_dec.grad is not None and made.W_enc.grad is not None
    mean = alone.W_dec.grad[:20].mean(dim=1, keepdim=True).expand(-1, 3, -1)
    torch.testing.assert_close(made.W_dec.grad[:20], mean)
    torch.testing.assert_close(made.W_dec.grad[56:], alone.W_dec.grad[56:])
    assert not made.W_dec.grad[20:44, :2].any() and not made.W_enc.grad[:2, :, 20:44].any()


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "batchtopk"])
@pytest.mark.parametrize("path", ["dense", "compact", "screened"])
def test_a_step_is_that_of_autograd_and_its_norm_counts_what_is_left(kind: str, path: Path) -> None:
    batch, design = WORLD.activations(60), design_of(kind)
    wanted = WORLD.expected(kind, 16, batch, dead=True, design=design)
    one = WORLD.learner(WORLD.crosscoder(sparsity_of(kind, 16), 16, design=design), path, dead=True)
    found = one.gradients(batch, 0.7)
    assert_equal((one, found), wanted)
    squares = [gradient(one, name).double().square().sum() for name in one.parameters if name != "b_dec"]
    assert float(found.square_norm) == pytest.approx(float(torch.stack(squares).sum()), rel=1e-6)


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "batchtopk"])
@pytest.mark.parametrize("path", PATHS)
def test_after_steps_shared_rows_are_equal_to_the_bit_and_missing_ones_zero(kind: str, path: Path) -> None:
    made = WORLD.crosscoder(sparsity_of(kind, 16), 16, wild=False, design=design_of(kind))
    before = made.W_dec.detach().clone()
    one = WORLD.learner(made, path, dead=True)
    for step in range(20):
        one.apply(one.gradients(WORLD.activations(60, step, wild=False), 1.0), 60, 1e-2)
    made.canonicalise()
    assert made.blocks is not None
    lacking = ~made.blocks.owned
    assert not made.W_dec[lacking].any() and not made.W_enc.permute(2, 0, 1)[lacking].any()
    shared = made.W_dec[made.blocks.shared]
    assert torch.equal(shared, shared[:, :1].expand_as(shared))
    assert not torch.allclose(before[56:], made.W_dec[56:])
    assert torch.equal(model_attribution_score(made.W_dec)[lacking], torch.zeros(int(lacking.sum())))


@pytest.mark.parametrize("path", ["dense", "screened"])
def test_a_resumed_step_is_that_of_an_undisturbed_run(path: Path) -> None:
    ends = []
    for resumed in (False, True):
        one = WORLD.learner(WORLD.crosscoder(ReLU(), 16, wild=False, design=DESIGN), path)
        for step in range(6):
            if resumed and step == 3:
                kept = {name: tensor.clone() for name, tensor in one.tensors().items()}
                one = WORLD.learner(WORLD.crosscoder(ReLU(), 16, wild=False, design=DESIGN), path)
                one.restore(kept)
            one.apply(one.gradients(WORLD.activations(60, step, wild=False), 1.0), 60, 1e-2)
        ends.append(one.tensors())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_folder_keeps_the_blocks(tmp_path: Folder) -> None:
    Crosscoder(MODELS, 6, 240, design=DESIGN).save(tmp_path)
    loaded = Crosscoder.load(tmp_path)
    assert loaded.design == DESIGN and loaded.blocks is not None and int(loaded.blocks.shared.sum()) == 20


@pytest.mark.parametrize(
    ("sparsity", "design", "message"),
    [
        (BatchTopK(k=3), Design(shared=Shared(3)), "BatchTopK has no penalty; use relu or jumprelu"),
        (ReLU(), Design(shared=Shared(30)), "30 shared and dedicated features do not fit a dictionary of 20"),
        (JumpReLU(), Design(partition={"dpo": 0.1}), "the partition names 'dpo'; join some, but not all, of base, sft"),
        (ReLU(), Design(partition={"base+sft+rl": 0.1}), "join some, but not all"),
        (ReLU(), Design(partition={"rl": 0.01}), "gives 'rl' no feature of 20; raise its share"),
        (ReLU(), Design(partition={"base+rl": 0.1, "rl+base": 0.1}), "names some models twice"),
    ],
)
def test_what_cannot_be_set_apart_is_refused(sparsity: Sparsity, design: Design, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Crosscoder(MODELS, 4, 20, sparsity, design=design)
