"""Crosscoders, batches, and what dense autograd in float64 makes of a step; shared by the tests of the kernels."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from featdiff.config.crosscoder import BatchTopK, Design, JumpReLU, ReLU, Sparsity
from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.kernels.parameter_rows import Found
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.step import Learner

PLAIN = Design()
KINDS = ("relu", "batchtopk", "jumprelu")


def sparsity_of(kind: str, active: int) -> Sparsity:
    match kind:
        case "relu":
            return ReLU(weight=2.0)
        case "batchtopk":
            return BatchTopK(k=max(1, active), aux_weight=0.3, aux_k=5, dead_after_tokens=100)
        case _:
            return JumpReLU(weight=0.5, threshold=0.4, bandwidth=0.1, pre_weight=0.01)


@dataclass(frozen=True)
class World:
    """How large crosscoders and activations are."""

    features: int
    d_model: int

    def activations(self, tokens: int, seed: int = 0, *, wild: bool = True) -> Tensor:
        """Normalised; if wild, one token and one dimension of them far larger than the rest."""
        values = torch.randn(tokens, 3, self.d_model, generator=torch.Generator().manual_seed(seed))
        if wild:
            values[:1] *= 30
            values[:, :, 3] *= 20
        return values

    @torch.no_grad()
    def crosscoder(self, sparsity: Sparsity, active: int, *, wild: bool = True, design: Design = PLAIN) -> Crosscoder:
        """One whose features are active about `active` times per token, with unequal norms and scales, and silent
        ones."""
        made = Crosscoder(("base", "sft", "rl"), self.d_model, self.features, sparsity, seed=1, design=design)
        generator = torch.Generator().manual_seed(2)
        made.scale.copy_(torch.tensor([1.0, 7.0, 0.2]))
        made.W_enc.mul_(8 * torch.rand(self.features, generator=generator).add(0.1).exp())
        made.W_dec.mul_(torch.rand(self.features, generator=generator).add(0.1)[:, None, None])
        made.b_dec.copy_(0.1 * torch.randn(3, self.d_model, generator=generator))
        made.W_dec[:5, 1] = 0.0  # features that one model lacks
        if made.blocks is not None:
            made.blocks.begin(made.W_dec)
            made.blocks.begin(made.W_enc.permute(2, 0, 1))
        pre = made.pre_activations(self.activations(400, seed=99, wild=wild) * made.scale[:, None])
        floor = made.log_threshold.exp() if made.log_threshold is not None else torch.zeros(self.features)
        made.b_enc.copy_(floor - torch.quantile(pre.double(), 1 - active / self.features, dim=0).float())
        made.b_enc.sub_(1e3 if active == 0 else 0.0)
        if wild:
            made.b_enc[5 : 5 + self.features // 16] = -1e4  # features that never fire
        return made

    def learner(self, made: Crosscoder, path: Path, *, dead: bool = False) -> Learner:
        """One that starts with `made`; if `dead`, some of its features count as dead, although they are active."""
        new = Learner(made, lr=1e-3, betas=(0.9, 0.999), clip=1.0, path=path, threads=2)
        if dead:
            new.silent_tokens[5 : 5 + self.features // 10] = 1000
            with torch.no_grad():
                made.b_enc[5 : 5 + self.features // 16] = 0.5
        return new

    def expected(
        self, kind: str, active: int, batch: Tensor, *, dead: bool, design: Design = PLAIN
    ) -> tuple[Learner, Found]:
        """Gradients by dense autograd in float64."""
        made = self.crosscoder(sparsity_of(kind, active), active, design=design).double()
        one = self.learner(made, "reference", dead=dead)
        return one, one.gradients(batch.double(), 0.7)


def dead_but_silent(world: World, make: Callable[[Crosscoder, Path], Learner], path: Path) -> tuple[Learner, Found]:
    """A BatchTopK step in which the features that stay silent are those that count as dead."""
    sparsity = BatchTopK(k=2, aux_weight=3.0, aux_k=4, dead_after_tokens=100)
    made = world.crosscoder(sparsity, 6)
    one = make(made.double() if path == "reference" else made, path)
    batch = world.activations(20).to(made.W_dec)
    one.silent_tokens[~one.gradients(batch, 1.0).fired] = 1000
    found = one.gradients(batch, 1.0)
    assert not (found.fired & (one.silent_tokens >= 1000)).any() and float(found.sparsity) > 0
    return one, found


def assert_equal(made: tuple[Learner, Found], wanted: tuple[Learner, Found]) -> None:
    """What a step in float32 found is what was wanted, within rounding."""
    (one, here), (other, there) = made, wanted
    assert here.active == there.active
    assert torch.equal(here.fired.cpu(), there.fired)
    assert float(here.reconstruction) == pytest.approx(float(there.reconstruction), rel=1e-5)
    assert float(here.squared_error) == pytest.approx(float(there.squared_error), rel=1e-5)
    assert float(here.sparsity) == pytest.approx(float(there.sparsity), rel=1e-5, abs=1e-9)
    assert float(here.square_norm) == pytest.approx(float(there.square_norm), rel=1e-4, abs=1e-20)
    for name, parameter in other.parameters.items():
        gradient = one.parameters[name].grad
        assert parameter.grad is not None and gradient is not None
        error = (gradient.cpu().double() - parameter.grad).norm()
        assert float(error) <= 1e-5 * float(parameter.grad.norm()) + 1e-12, name
