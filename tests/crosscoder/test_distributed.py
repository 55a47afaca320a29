"""Several processes that share tokens, features or both end where one process ends, and go on from each other's
checkpoints.

This file, when it is run, is a process that trains alone, then forks as many processes as are asked for, which train
together: one import and one compilation serve all. They write what became of each check.
"""

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from jaxtyping import install_import_hook

if __name__ == "__main__":
    install_import_hook("featdiff", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

from featdiff.activations.stream import Activations
from featdiff.config.crosscoder import Cosine, DeltaMSE
from featdiff.config.study import TrainingSettings
from featdiff.crosscoder import BatchTopK, Crosscoder, Design, JumpReLU, Procrustes, ReLU, Shared
from featdiff.crosscoder.distributed import Grid
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.shards import part_of
from featdiff.crosscoder.trainer import train
from featdiff.planted import Group, PlantedState, PlantedStream, World

MODELS = ("base", "sft", "rl")
STEPS, BATCH, BROKEN = 50, 64, 20
SPARSITIES = {
    "relu": ReLU(weight=0.5),
    "batchtopk": BatchTopK(k=3, aux_k=4, aux_weight=0.3, dead_after_tokens=300),
    "jumprelu": JumpReLU(weight=0.2, bandwidth=0.4, pre_weight=0.01),
    "set_apart": ReLU(weight=0.5),
    "angle": BatchTopK(k=3, aux_k=4, aux_weight=0.3, dead_after_tokens=300),
}
DESIGNS = {
    "set_apart": Design(
        objective=DeltaMSE(-0.5),
        align=Procrustes(200),
        shared=Shared(8, 0.25),
        partition={"rl": 0.25, "base+sft": 0.1},
    ),
    "angle": Design(objective=Cosine(), partition={"rl": 0.25}),
}
ROWS = {2: (1, 2), 4: (1, 2, 4)}
"""Processes of a row, by the number of processes."""
ORIGINS = {"2-1": ("1-1", "2-2"), "2-2": ("1-1", "2-1"), "4-1": ("2-2",), "4-2": ("1-1", "2-1"), "4-4": ("2-1",)}
"""Whose checkpoints a grid goes on from: the processes and those of a row."""


@dataclass(frozen=True)
class SharedStream(PlantedStream):
    """A planted stream of which each process gets a random share of every batch, and at times none."""

    rank: int = 0
    count: int = 1
    until: int = STEPS

    def batches(self, state: PlantedState | None = None) -> Iterator[tuple[Activations, PlantedState]]:
        for batch, after in super().batches(state):
            if after.step > self.until:
                raise Interrupted
            dice = torch.Generator().manual_seed(after.step)
            owner = torch.randint(self.count, (len(batch.values),), generator=dice)
            owner = owner if after.step % 10 else torch.zeros_like(owner)
            own = owner == self.rank
            yield Activations(batch.models, batch.values[own], batch.tokens[own]), after


class Interrupted(Exception):
    pass


def trained(kind: str, ranks: Ranks, folder: Path, until: int = STEPS) -> Crosscoder:
    groups = (Group(MODELS, 6, probability=0.1), Group(("rl",), 4, probability=0.1))
    world = World.build(MODELS, 16, groups, seed=0, noise=0.05)
    scale = torch.tensor([1.0, 0.5, 2.0])
    stream = SharedStream(world, STEPS, BATCH, seed=1, scale=scale, rank=ranks.rank, count=ranks.count, until=until)
    crosscoder = Crosscoder(MODELS, 16, 64, SPARSITIES[kind], seed=0, design=DESIGNS.get(kind, Design()))
    settings = TrainingSettings(batch_size=BATCH, lr=3e-3, log_every=10)
    train(
        {kind: crosscoder},
        stream,
        settings,
        folder=folder,
        checkpoint_steps=BROKEN,
        ranks=ranks,
    )
    return crosscoder


def broken_off(kind: str, ranks: Ranks, folder: Path) -> None:
    with pytest.raises(Interrupted):
        trained(kind, ranks, folder, until=BROKEN + 5)


def assert_same(found: Crosscoder, wanted: Crosscoder, tolerance: float = 1e-5) -> None:
    for (name, here), there in zip(found.state_dict().items(), wanted.state_dict().values(), strict=True):
        assert float((here - there).norm()) <= tolerance * float(there.norm()), name


# ------------------------------------------------------------------ in the processes


@dataclass(frozen=True)
class Run:
    """What a check is given: its grid, the folder of all runs, and what a single process learned, by sparsity."""

    grid: Grid
    folder: Path
    alone: dict[str, Crosscoder]

    @property
    def name(self) -> str:
        return f"{self.grid.count}-{self.grid.feature_shards}"


def check_training(run: Run, kind: str) -> None:
    found = trained(kind, run.grid, run.folder / "whole" / run.name / kind)
    assert_same(found, run.alone[kind])
    replicas = [torch.empty_like(found.b_dec.data) for _ in range(run.grid.count)]
    dist.all_gather(replicas, found.b_dec.data)
    assert all(torch.equal(replica, found.b_dec) for replica in replicas)


def check_relu(run: Run) -> None:
    check_training(run, "relu")


def check_batchtopk(run: Run) -> None:
    check_training(run, "batchtopk")


def check_jumprelu(run: Run) -> None:
    check_training(run, "jumprelu")


def check_set_apart(run: Run) -> None:
    check_training(run, "set_apart")


def check_angle(run: Run) -> None:
    check_training(run, "angle")


def check_resuming_to_the_same_bytes(run: Run) -> None:
    """Needs check_batchtopk."""
    folder = run.folder / "resumed" / run.name
    broken_off("batchtopk", run.grid, folder)
    if run.grid.rank == 0:
        shutil.copytree(folder, run.folder / "broken" / run.name)
    resumed = trained("batchtopk", run.grid, folder)
    undisturbed = Crosscoder.load(run.folder / "whole" / run.name / "batchtopk" / "batchtopk")
    assert_same(resumed, undisturbed, tolerance=0.0)


def check_resuming_from_other_numbers_and_splits(run: Run) -> None:
    """Needs check_resuming_to_the_same_bytes of two processes."""
    for origin in ORIGINS[run.name]:
        folder = run.folder / "moved" / f"{origin} to {run.name}"
        if run.grid.rank == 0:
            shutil.copytree(run.folder / "broken" / origin, folder)
        dist.barrier()
        assert_same(trained("batchtopk", run.grid, folder), run.alone["batchtopk"])


def check_the_cut(run: Run) -> None:
    dice = torch.Generator().manual_seed(0)
    for case in range(60):
        numbers = torch.randn(run.grid.count, 40, generator=dice) * 10.0 ** (case % 7 - 3)
        numbers[:, :10] = numbers[0, :10]  # ties
        count, guess = 1 + case * 3, [0.0, float(numbers.max()) * 0.3, 1e9][case % 3]
        found, wanted = (
            run.grid.cut(numbers[run.grid.rank], count, guess),
            Ranks().cut(numbers.view(-1), count, guess),
        )
        assert (found is None) == (wanted is None)
        assert found is None or wanted is None or torch.equal(found, wanted)
    assert run.grid.cut(None if run.grid.rank else torch.ones(3), 1, 0.0) is None
    nothing = run.grid.cut(-torch.ones(3), 1, 0.0)
    assert nothing is not None and nothing == torch.inf


def check_the_rest_of_the_grid(run: Run) -> None:
    grid, dice = run.grid, torch.Generator().manual_seed(0)
    row, place = divmod(grid.rank, grid.feature_shards)
    widths = [[5, 0, 2, 9], [1, 1, 7, 3]][row % 2][: grid.feature_shards]
    values = torch.rand(6, sum(widths), generator=dice)
    own = values.split(widths, dim=1)[place]
    for count in (1, 3, 30):
        wanted = values.sort(dim=1, descending=True).values[:, min(count, sum(widths)) - 1]
        assert torch.equal(grid.least_of_largest(own, count), wanted)
    assert torch.equal(grid.tokens_of_row(own.T), values.T)

    parts = [part_of(Crosscoder(MODELS, 16, 64, seed=3), grid), Crosscoder(MODELS, 16, 64, seed=3)]
    assert torch.equal(grid.whole(parts[0].W_enc.data, 2), parts[1].W_enc)
    assert torch.equal(parts[0].W_dec, parts[1].W_dec.view(grid.feature_shards, -1, 3, 16)[place])
    if grid.feature_shards > 1:
        with pytest.raises(ValueError, match="63 features cannot be divided among"):
            part_of(Crosscoder(MODELS, 16, 63), grid)


CHECKS: tuple[Callable[[Run], None], ...] = (
    check_the_cut,
    check_the_rest_of_the_grid,
    check_relu,
    check_jumprelu,
    check_batchtopk,
    check_set_apart,
    check_angle,
    check_resuming_to_the_same_bytes,
    check_resuming_from_other_numbers_and_splits,
)


def take_part(folder: Path, alone: dict[str, Crosscoder], rank: int, count: int) -> None:
    """Be one of `count` processes: every check on every grid of so many."""
    store = f"file://{folder / f'store-{count}'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
    outcomes, path = {}, folder / f"outcomes-{count}-{rank}.json"
    grids = {f"{count}-{shards}": Grid.of("cpu", shards) for shards in ROWS[count]}
    for check in CHECKS:
        for name, grid in grids.items():
            try:
                check(Run(grid, folder, alone))
                outcomes[f"{name} {check.__name__}"] = "passed"
            except Exception:
                outcomes[f"{name} {check.__name__}"] = traceback.format_exc()
                raise  # the others are no longer at the same place
            finally:
                path.write_text(json.dumps(outcomes))
    dist.barrier()


def serve(folder: Path) -> None:
    """Train alone, then together in two and in four processes, then go on alone from what they left."""
    torch.set_num_threads(1)
    alone = {kind: trained(kind, Ranks(), folder / "whole" / "1-1" / kind) for kind in SPARSITIES}
    broken_off("batchtopk", Ranks(), folder / "broken" / "1-1")
    for count in ROWS:
        children = []
        for rank in range(count):
            child = os.fork()
            if not child:
                try:
                    take_part(folder, alone, rank, count)
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
    for origin in ("2-1", "2-2", "4-2"):
        shutil.copytree(folder / "broken" / origin, folder / "moved" / f"{origin} to 1-1")
        assert_same(trained("batchtopk", Ranks(), folder / "moved" / f"{origin} to 1-1"), alone["batchtopk"])
        (folder / f"{origin} to 1-1").touch()


# ------------------------------------------------------------------ in the test


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all processes have written."""
    folder = tmp_path_factory.mktemp("parallel")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with (folder / "said").open("w") as said:
        subprocess.run([sys.executable, __file__, str(folder)], env=environment, stdout=said, stderr=said, timeout=600)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
@pytest.mark.parametrize("grid", ["2-1", "2-2", "4-1", "4-2", "4-4"])
def test_processes_together(folder: Path, grid: str, check: str) -> None:
    for rank in range(int(grid[0])):
        path = folder / f"outcomes-{grid[0]}-{rank}.json"
        assert path.is_file(), (folder / "said").read_text()
        outcome = json.loads(path.read_text()).get(f"{grid} {check}", "not reached")
        assert outcome == "passed", f"rank {rank}: {outcome}"


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["2-1", "2-2", "4-1", "4-2", "4-4"])
def test_one_process_writes_what_a_single_process_writes(folder: Path, grid: str) -> None:
    for kind in SPARSITIES:
        here, there = folder / "whole" / grid / kind, folder / "whole" / "1-1" / kind
        assert sorted(path.relative_to(here) for path in here.rglob("*")) == sorted(
            path.relative_to(there) for path in there.rglob("*")
        )
        lines = [(place / kind / "metrics.jsonl").read_text().splitlines() for place in (here, there)]
        for one, other in zip(*lines, strict=True):
            assert json.loads(one) == pytest.approx(json.loads(other), rel=1e-4, abs=1e-6)
        assert_same(Crosscoder.load(here / kind), Crosscoder.load(there / kind))


@pytest.mark.slow
@pytest.mark.parametrize("origin", ["2-1", "2-2", "4-2"])
def test_one_process_goes_on_where_several_stopped(folder: Path, origin: str) -> None:
    assert (folder / f"{origin} to 1-1").is_file(), (folder / "said").read_text()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
