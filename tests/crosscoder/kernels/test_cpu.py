import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from featdiff.crosscoder.kernels.rows import PATHS, Found, Path
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity
from featdiff.crosscoder.step import Learner

FEATURES, WIDTH = 600, 24
KINDS = ("relu", "batchtopk", "jumprelu")


def sparsity_of(kind: str, active: int) -> Sparsity:
    match kind:
        case "relu":
            return ReLU(weight=2.0)
        case "batchtopk":
            return BatchTopK(k=max(1, active), aux_weight=0.3, aux_k=5, dead_after_tokens=100)
        case _:
            return JumpReLU(weight=0.5, threshold=0.4, bandwidth=0.1, pre_weight=0.01)


def activations(tokens: int, seed: int = 0, *, wild: bool = True) -> Tensor:
    """Normalised; if wild, one token and one dimension of them far larger than the rest."""
    values = torch.randn(tokens, 3, WIDTH, generator=torch.Generator().manual_seed(seed))
    if wild:
        values[0] *= 30
        values[:, :, 3] *= 20
    return values


def crosscoder(sparsity: Sparsity, active: int, *, wild: bool = True) -> Crosscoder:
    """One whose features are active about `active` times per token, with unequal norms and scales, and silent ones."""
    made = Crosscoder(("base", "sft", "rl"), WIDTH, FEATURES, sparsity, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        made.scale.copy_(torch.tensor([1.0, 7.0, 0.2]))
        made.W_enc.mul_(8 * torch.rand(FEATURES, generator=generator).add(0.1).exp())
        made.W_dec.mul_(torch.rand(FEATURES, generator=generator).add(0.1)[:, None, None])
        made.b_dec.copy_(0.1 * torch.randn(3, WIDTH, generator=generator))
        made.W_dec[:5, 1] = 0.0  # features that one model lacks
        pre = made.pre_activations(activations(400, seed=99, wild=wild) * made.scale[:, None])
        floor = made.log_threshold.exp() if made.log_threshold is not None else torch.zeros(FEATURES)
        made.b_enc.copy_(floor - torch.quantile(pre.double(), 1 - active / FEATURES, dim=0).float())
        made.b_enc.sub_(1e3 if active == 0 else 0.0)
        if wild:
            made.b_enc[5:40] = -1e4  # features that never fire
    return made


def learner(made: Crosscoder, path: Path, dead: bool) -> Learner:
    new = Learner(made, lr=1e-3, betas=(0.9, 0.999), clip=1.0, path=path, threads=2)
    if dead:
        new.silent_tokens[5:60] = 1000
        with torch.no_grad():
            made.b_enc[5:40] = 0.5
    return new


def found_by(path: Path, kind: str, active: int, tokens: Tensor, dead: bool) -> tuple[Learner, Found]:
    sparsity = sparsity_of(kind, active)
    made = crosscoder(sparsity, active)
    one = learner(made if path != "reference" else made.double(), path, dead)
    if isinstance(sparsity, BatchTopK) and path != "reference":
        # Any guess below the cut must do.
        one._last_cut.fill_(0.9 * float(found_by("reference", kind, active, tokens, dead)[1].cut))
    return one, one.gradients(tokens.to(made.W_dec.dtype), 0.7)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    path=st.sampled_from([path for path in PATHS if path != "reference"]),
    active=st.sampled_from([0, 1, 32, 64, 128, int(0.3 * FEATURES)]),
    tokens=st.sampled_from([1, 7, 300]),
    dead=st.booleans(),
    seed=st.integers(0, 3),
)
def test_gradients_are_those_of_autograd_in_float64(
    kind: str, path: Path, active: int, tokens: int, dead: bool, seed: int
) -> None:
    batch = activations(tokens, seed)
    wanted, there = found_by("reference", kind, active, batch, dead)
    made, here = found_by(path, kind, active, batch, dead)
    assert here.active == there.active
    assert torch.equal(here.fired, there.fired)
    assert float(here.reconstruction) == pytest.approx(float(there.reconstruction), rel=1e-5)
    assert float(here.sparsity) == pytest.approx(float(there.sparsity), rel=1e-5, abs=1e-9)
    assert float(here.square_norm) == pytest.approx(float(there.square_norm), rel=1e-4, abs=1e-20)
    for name, parameter in wanted.parameters.items():
        here_too = made.parameters[name].grad
        assert parameter.grad is not None and here_too is not None
        error = (here_too.double() - parameter.grad).norm()
        assert float(error) <= 1e-5 * float(parameter.grad.norm()) + 1e-12, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["dense", "compact", "screened"])
def test_two_hundred_steps_end_where_autograd_and_torch_end(kind: str, path: Path) -> None:
    ends = []
    for way in ("reference", path):
        made = crosscoder(sparsity_of(kind, 6), 6, wild=False)
        one = learner(made, way, dead=False)
        for step in range(200):
            tokens = activations(64, step % 20, wild=False)
            found = one.gradients(tokens, min(1.0, step / 20))
            one.apply(found, len(tokens), 1e-4)
            assert found.active > 64
        ends.append({name: parameter.detach() for name, parameter in one.parameters.items()})
    for name, parameter in ends[0].items():
        assert float((ends[1][name] - parameter).norm()) <= 1e-4 * float(parameter.norm()), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_threads_changes_no_bit_of_a_screened_step(kind: str) -> None:
    ends = []
    for threads in (1, 3):
        made = crosscoder(sparsity_of(kind, 6), 6)
        one = Learner(made, lr=1e-3, betas=(0.9, 0.999), clip=1.0, path="screened", threads=threads)
        for _ in range(5):
            one.apply(one.gradients(activations(700), 1.0), 700, 1e-3)
        ends.append({**one.tensors(), **{name: parameter.grad for name, parameter in one.parameters.items()}})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_guess_that_is_too_high_costs_nothing_but_time() -> None:
    tokens, sparsity = activations(50), BatchTopK(k=6)
    gradients = []
    for guess in (0.0, 1e6):
        one = learner(crosscoder(sparsity, 6), "screened", dead=False)
        one._last_cut.fill_(guess)
        found = one.gradients(tokens, 1.0)
        assert found.active == 300
        gradients.append([parameter.grad for parameter in one.parameters.values()])
    for one, other in zip(*gradients, strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(one.norm())


def test_the_path_follows_the_share_of_active_features() -> None:
    tokens = activations(200)
    one = Learner(crosscoder(ReLU(weight=0.0), 3), lr=0.0, betas=(0.9, 0.999), clip=1.0)
    paths = []
    for active in (3, 3, 40, 40, 200, 3):
        with torch.no_grad():
            one.crosscoder.b_enc.copy_(crosscoder(ReLU(), active).b_enc)
        paths.append(one.path)
        one.apply(one.gradients(tokens, 1.0), len(tokens), 0.0)
    sparse = paths[1]
    assert paths == ["dense", sparse, sparse, "compact", "compact", "dense"]
    assert sparse in ("screened", "compact")
