import pytest
import torch
from torch import Tensor

from featdiff.config.crosscoder import BatchTopK, JumpReLU, ReLU, Sparsity
from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import training_features
from featdiff.crosscoder.step import Learner

MODELS = ("base", "sft", "rl")
SPARSITIES = [
    ReLU(weight=2.0),
    BatchTopK(k=4, aux_weight=0.3, aux_k=2, dead_after_tokens=50),
    JumpReLU(weight=0.3, bandwidth=0.4, pre_weight=0.05, threshold=0.3),
]


def crosscoder(sparsity: Sparsity, dtype: torch.dtype = torch.float64) -> Crosscoder:
    made = Crosscoder(models=MODELS, d_model=8, features=40, sparsity=sparsity).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        made.b_enc.sub_(0.5)
        made.W_dec[11, 1] = 0.0  # a feature that one model lacks: its norm has a kink there
    return made


def batch(step: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(32, 3, 8, generator=torch.Generator().manual_seed(100 + step)).to(dtype)


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("path", ["reference", "dense"])
def test_ten_steps_equal_ten_of_torch_with_autograd_clipping_and_adam(sparsity: Sparsity, path: Path) -> None:
    made, reference = crosscoder(sparsity), crosscoder(sparsity)
    learner = Learner(made, lr=1e-2, betas=(0.8, 0.99), clip=1.0, path=path)
    adam = torch.optim.Adam(reference.parameters(), lr=1e-2, betas=(0.8, 0.99))
    silent = torch.zeros(40, dtype=torch.int64)
    for step in range(10):
        dead = silent >= 50 if isinstance(sparsity, BatchTopK) else silent < 0
        learner.apply(learner.gradients(batch(step), 1.0), 32, 1e-2 / (1 + step))
        adam.param_groups[0]["lr"] = 1e-2 / (1 + step)
        adam.zero_grad()
        with torch.no_grad():
            pre, norms = reference.pre_activations(batch(step)), reference.decoder_norms()
            fired = training_features(sparsity, pre, norms, reference.thresholds()).any(dim=0)
        reference.loss(batch(step), dead=dead).total.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        adam.step()
        silent = torch.where(fired, 0, silent + 32)
        assert torch.equal(learner.silent_tokens, silent)
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(learner.parameters[name], parameter, rtol=1e-6, atol=1e-9)


def test_without_a_ramp_the_penalty_pulls_at_nothing() -> None:
    with_penalty, without = crosscoder(ReLU(weight=2.0)), crosscoder(ReLU(weight=0.0))
    found = {}
    for name, made, ramp in (("ramp 0", with_penalty, 0.0), ("weight 0", without, 1.0)):
        learner = Learner(made, lr=1e-3, betas=(0.9, 0.999), clip=1.0)
        learner.gradients(batch(), ramp)
        found[name] = [parameter.grad for parameter in learner.parameters.values()]
    assert all(torch.equal(*pair) for pair in zip(found["ramp 0"], found["weight 0"], strict=True))


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("path", ["dense", "compact", "screened"])
def test_a_process_without_a_token_of_the_batch_finds_nothing(sparsity: Sparsity, path: Path) -> None:
    learner = Learner(crosscoder(sparsity, torch.float32), lr=1e-2, betas=(0.9, 0.999), clip=1.0, path=path)
    learner.silent_tokens[:5] = 100  # dead
    learner.gradients(batch(dtype=torch.float32), 1.0)  # which must not be left standing
    found = learner.gradients(torch.empty(0, 3, 8), 1.0, total=32)
    assert found.active == 0 and not found.fired.any()
    assert float(found.reconstruction) == float(found.square_norm) == 0
    assert not any(parameter.grad.any() for parameter in learner.parameters.values() if parameter.grad is not None)


def test_the_threshold_settles_at_the_share_of_features_that_training_keeps() -> None:
    made = crosscoder(BatchTopK(k=4), torch.float32)
    learner = Learner(made, lr=0.0, betas=(0.9, 0.999), clip=1.0)
    for step in range(200):
        learner.apply(learner.gradients(batch(step, torch.float32), 1.0), 32, 0.0)
    tokens = torch.cat([batch(1000 + step, torch.float32) for step in range(50)])
    active = (made.encode(tokens) > 0).sum(dim=1).float().mean()
    assert active.item() == pytest.approx(4.0, abs=0.2)


def test_a_restored_learner_goes_on_to_the_same_bits() -> None:
    sparsity = BatchTopK(k=4, dead_after_tokens=50)
    straight = Learner(crosscoder(sparsity, torch.float32), lr=1e-2, betas=(0.9, 0.999), clip=1.0)
    for step in range(5):
        straight.apply(straight.gradients(batch(step, torch.float32), 1.0), 32, 1e-2)
    resumed = Learner(Crosscoder(MODELS, 8, 40, sparsity, seed=9), lr=1e-2, betas=(0.9, 0.999), clip=1.0)
    resumed.restore({name: tensor.clone() for name, tensor in straight.tensors().items()})
    for step in range(5, 9):
        for learner in (straight, resumed):
            learner.apply(learner.gradients(batch(step, torch.float32), 1.0), 32, 1e-2)
    ends = (straight.tensors(), resumed.tensors())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
