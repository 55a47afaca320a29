import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_crosscoders import KINDS, World, assert_equal, dead_but_silent, sparsity_of

from featdiff.config.crosscoder import BatchTopK, ReLU
from featdiff.crosscoder.kernels.borders import PATHS, Path
from featdiff.crosscoder.step import Learner

WORLD = World(features=600, d_model=24)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    path=st.sampled_from([path for path in PATHS if path != "reference"]),
    active=st.sampled_from([0, 1, 32, 64, 128, int(0.3 * WORLD.features)]),
    tokens=st.sampled_from([1, 7, 300]),
    dead=st.booleans(),
    seed=st.integers(0, 3),
)
def test_gradients_are_those_of_autograd_in_float64(
    kind: str, path: Path, active: int, tokens: int, dead: bool, seed: int
) -> None:
    batch = WORLD.activations(tokens, seed)
    wanted = WORLD.expected(kind, active, batch, dead=dead)
    one = WORLD.learner(WORLD.crosscoder(sparsity_of(kind, active), active), path, dead=dead)
    if kind == "batchtopk":
        # Any guess below the cut must do.
        one._last_cut.fill_(0.9 * float(wanted[1].cut))
    assert_equal((one, one.gradients(batch, 0.7)), wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["dense", "compact", "screened"])
def test_two_hundred_steps_end_where_autograd_and_torch_end(kind: str, path: Path) -> None:
    ends = []
    for way in ("reference", path):
        made = WORLD.crosscoder(sparsity_of(kind, 6), 6, wild=False)
        one = WORLD.learner(made, way)
        for step in range(200):
            tokens = WORLD.activations(64, step % 20, wild=False)
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
        made = WORLD.crosscoder(sparsity_of(kind, 6), 6)
        one = Learner(made, lr=1e-3, betas=(0.9, 0.999), clip=1.0, path="screened", threads=threads)
        for _ in range(5):
            one.apply(one.gradients(WORLD.activations(700), 1.0), 700, 1e-3)
        ends.append({**one.tensors(), **{name: parameter.grad for name, parameter in one.parameters.items()}})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("path", ["dense", "compact", "screened"])
def test_dead_features_that_stay_silent_move_by_their_auxiliary_gradient(path: Path) -> None:
    made = dead_but_silent(WORLD, WORLD.learner, path)
    wanted = dead_but_silent(WORLD, WORLD.learner, "reference")
    assert_equal(made, wanted)
    for one, found in (made, wanted):
        one.apply(found, 20, 1e-3)
    for name, parameter in wanted[0].parameters.items():
        error = (made[0].parameters[name].cpu().double() - parameter).detach().norm()
        assert float(error) <= 1e-6 * float(parameter.detach().norm()), name


def test_a_guess_that_is_too_high_costs_nothing_but_time() -> None:
    tokens, sparsity = WORLD.activations(50), BatchTopK(k=6)
    gradients = []
    for guess in (0.0, 1e6):
        one = WORLD.learner(WORLD.crosscoder(sparsity, 6), "screened")
        one._last_cut.fill_(guess)
        found = one.gradients(tokens, 1.0)
        assert found.active == 300
        gradients.append([parameter.grad for parameter in one.parameters.values()])
    for one, other in zip(*gradients, strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(one.norm())


def test_the_path_follows_the_share_of_active_features() -> None:
    tokens = WORLD.activations(200)
    one = Learner(WORLD.crosscoder(ReLU(weight=0.0), 3), lr=0.0, betas=(0.9, 0.999), clip=1.0)
    paths = []
    for active in (3, 3, 40, 40, 200, 3):
        with torch.no_grad():
            one.crosscoder.b_enc.copy_(WORLD.crosscoder(ReLU(), active).b_enc)
        paths.append(one.path)
        one.apply(one.gradients(tokens, 1.0), len(tokens), 0.0)
    sparse = paths[1]
    assert paths == ["dense", sparse, sparse, "compact", "compact", "dense"]
    assert sparse in ("screened", "compact")
