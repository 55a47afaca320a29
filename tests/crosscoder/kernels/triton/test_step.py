"""The programs run in Triton's interpreter, or on a GPU where there is one."""

import pytest

pytest.importorskip("triton", reason="triton has wheels for Linux only")

import json
import os
import subprocess
import sys
from pathlib import Path as File

import torch
from tiny_crosscoders import KINDS, World, assert_equal, dead_but_silent, sparsity_of
from torch import Tensor
from triton.runtime import interpreter, jit

from featdiff.config.crosscoder import BatchTopK, Cosine, DeltaMSE, Design, Objective, ReLU, Shared
from featdiff.crosscoder.kernels import sparse_step
from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.kernels.triton.step import Triton
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.step import Learner

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WORLD = World(features=28, d_model=11)
"""The interpreter takes milliseconds for a program, and there is one for every row."""


def learner(made: Crosscoder, path: Path, *, dead: bool = False) -> Learner:
    one = WORLD.learner(made.to(DEVICE), path, dead=dead)
    if DEVICE == "cpu":
        one._kernel = Triton(made.sparsity, one._weights, one._gradients, len(made.models))
    return one


def batch(tokens: int, seed: int = 0) -> Tensor:
    return WORLD.activations(tokens, seed).to(DEVICE)


def all_of(one: Learner) -> dict[str, Tensor]:
    gradients = {f"grad.{name}": parameter.grad for name, parameter in one.parameters.items()}
    return {name: tensor.clone() for name, tensor in {**one.tensors(), **gradients}.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("path", "active", "tokens", "dead"),
    [
        ("screened", 0, 7, False),
        ("screened", 1, 1, False),
        ("screened", 2, 33, True),
        ("compact", 3, 12, True),
        ("screened", 20, 3, False),  # too many: dense
    ],
)
def test_gradients_are_those_of_autograd_in_float64(
    kind: str, path: Path, active: int, tokens: int, dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = WORLD.activations(tokens, seed=5, wild=tokens > 1)
    wanted = WORLD.expected(kind, active, x, dead=dead)
    one = learner(WORLD.crosscoder(sparsity_of(kind, active), active), path, dead=dead)
    if kind == "batchtopk":
        # Any guess below the cut must do.
        one._last_cut.copy_(0.9 * wanted[1].cut.nan_to_num(posinf=0.0))
    if active < 20:
        monkeypatch.delattr(sparse_step, "dense_gradients")
    assert_equal((one, one.gradients(x.to(DEVICE), 0.7)), wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", [DeltaMSE(-0.5), Cosine()])
def test_other_objectives_and_features_set_apart_are_those_of_autograd(kind: str, objective: Objective) -> None:
    shared = Shared(0 if kind == "batchtopk" else 6, 0.3)
    design = Design(objective=objective, shared=shared, partition={"rl": 0.2})
    x = WORLD.activations(9, seed=5)
    wanted = WORLD.expected(kind, 2, x, dead=True, design=design)
    one = learner(WORLD.crosscoder(sparsity_of(kind, 2), 2, design=design), "screened", dead=True)
    if kind == "batchtopk":
        one._last_cut.copy_(0.9 * wanted[1].cut)
    assert_equal((one, one.gradients(x.to(DEVICE), 0.7)), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_end_where_autograd_and_torch_end(kind: str) -> None:
    ends = []
    for way in ("reference", "screened"):
        made = WORLD.crosscoder(sparsity_of(kind, 3), 3, wild=False)
        one = learner(made, way) if way == "screened" else WORLD.learner(made, way)
        for step in range(2):
            tokens = WORLD.activations(20, step, wild=False).to(made.W_dec.device)
            one.apply(one.gradients(tokens, 0.5), len(tokens), 1e-3)
        ends.append({name: parameter.detach().cpu() for name, parameter in one.parameters.items()})
    for name, parameter in ends[0].items():
        assert float((ends[1][name] - parameter).norm()) <= 1e-6 * float(parameter.norm()), name


def test_a_step_gives_the_same_bits_every_time() -> None:
    ends = []
    for _ in range(2):
        one = learner(WORLD.crosscoder(ReLU(), 4), "screened")
        one.apply(one.gradients(batch(30), 1.0), 30, 1e-3)
        ends.append(all_of(one))
    assert all(torch.equal(ends[0][name], tensor) for name, tensor in ends[1].items())


def test_a_resumed_run_goes_on_with_the_same_bits() -> None:
    one, resumed = (learner(WORLD.crosscoder(BatchTopK(k=2), 4), "screened") for _ in range(2))
    one.apply(one.gradients(batch(12), 1.0), 12, 1e-3)
    resumed.restore(all_of(one))
    ends = []
    for each in (one, resumed):
        each.apply(each.gradients(batch(12, seed=1), 1.0), 12, 1e-3)
        ends.append(all_of(each))
    assert all(torch.equal(ends[0][name], tensor) for name, tensor in ends[1].items())


def test_only_rows_of_features_with_a_pair_are_written_and_read() -> None:
    one = learner(WORLD.crosscoder(BatchTopK(k=1), 4), "screened")
    fired = one.gradients(batch(6), 1.0).fired
    assert 0 < int(fired.sum()) < WORLD.features
    for rows in (one._gradients.enc, one._gradients.dec):
        assert (rows[fired] != 0).any(dim=1).all() and not rows[~fired].any()
        rows[~fired] = torch.nan
    now = one.gradients(batch(6, seed=1), 1.0).fired
    assert (fired & ~now).any() and (now & ~fired).any()
    for rows in (one._gradients.enc, one._gradients.dec):
        assert not rows[fired & ~now].any()  # what the step before left
        assert rows[~fired & ~now].isnan().all()
    found = one.gradients(batch(6, seed=1), 1.0)
    one.apply(found, 6, 1e-3)
    assert all(parameter.isfinite().all() for parameter in one.parameters.values())


def test_dead_features_that_stay_silent_move_by_their_auxiliary_gradient() -> None:
    made = dead_but_silent(WORLD, learner, "screened")
    wanted = dead_but_silent(WORLD, WORLD.learner, "reference")
    assert_equal(made, wanted)
    for one, found in (made, wanted):
        one.apply(found, 20, 1e-3)
    for name, parameter in wanted[0].parameters.items():
        error = (made[0].parameters[name].cpu().double() - parameter).detach().norm()
        assert float(error) <= 1e-6 * float(parameter.detach().norm()), name


def test_a_guess_that_is_too_high_costs_nothing_but_time() -> None:
    gradients = []
    for guess in (0.0, 1e6):
        one = learner(WORLD.crosscoder(BatchTopK(k=3), 4), "screened")
        one._last_cut.fill_(guess)
        assert one.gradients(batch(20), 1.0).active == 60
        gradients.append([parameter.grad for parameter in one.parameters.values()])
    for one, other in zip(*gradients, strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(one.norm())


COMPILED = """
import importlib, json, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

for module, name, signature, constants, aligned in json.load(sys.stdin):
    program, places = getattr(importlib.import_module(module), name), list(signature)
    types = {key: tuple(kind) if isinstance(kind, list) else kind for key, kind in signature.items()}
    constants = {(places.index(key),): value for key, value in constants.items()}
    aligned = {(places.index(key),): [["tt.divisibility", 16]] for key in aligned}
    compiled = compile(ASTSource(program, types, constants, aligned), target=GPUTarget("cuda", 90, 32))
    print(name, json.dumps(compiled.asm["ptx"]))
"""
"""Compiles what a step launched; in a process of its own, since here triton has been told to interpret."""


@pytest.mark.slow
@pytest.mark.skipif(DEVICE == "cuda", reason="here all tests compile")
def test_every_program_compiles_for_an_h100_with_no_atomic_operation_and_no_rounded_product(
    monkeypatch: pytest.MonkeyPatch, tmp_path: File
) -> None:
    launches, run = [], interpreter.InterpretedFunction.run

    def recorded(self: interpreter.InterpretedFunction, *args: object, **options: object) -> None:
        given = dict(zip(self.arg_names, args, strict=False))
        constants = {name: value for name, value in options.items() if name in self.arg_names}
        types = {name: type_of(value) for name, value in given.items()} | dict.fromkeys(constants, "constexpr")
        aligned = [name for name, value in given.items() if name != "pairs" and is_aligned(value)]
        launches.append([self.fn.__module__, self.fn.__name__, types, constants, aligned])
        run(self, *args, **options)

    def type_of(value: object) -> object:
        return [type_of(each) for each in value] if isinstance(value, tuple) else jit.mangle_type(value)

    def is_aligned(value: object) -> bool:
        return isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0)

    monkeypatch.setattr(interpreter.InterpretedFunction, "run", recorded)
    world = World(features=64, d_model=16)
    for kind in KINDS:
        made = world.crosscoder(sparsity_of(kind, 4), 4)
        one = world.learner(made, "screened")
        one._kernel = Triton(made.sparsity, one._weights, one._gradients, 3)
        one.apply(one.gradients(world.activations(8), 1.0), 8, 1e-3)
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    different = {json.dumps(launch) for launch in launches}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        input=f"[{','.join(sorted(different))}]",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert set(found) == {"_count", "_list", "_products", "_decode", "_sums", "_gradient", "_adam"}
    for name, text in found.items():
        for forbidden in ("atom.", "red.global", "tf32", "mma"):
            assert forbidden not in text, name
