"""The studies that come with the repository: they validate, and the paper's carry the paper's settings (Appendix A)."""

import subprocess
import sys
from pathlib import Path

import pytest

from featdiff.config.study import ReLU, Study
from featdiff.config.study_file import read_study
from featdiff.run.plan import Plan
from featdiff.workflow.registry import stages_of

STUDIES = Path(__file__).parents[1] / "studies"
PAPER = ("qwen3-4b", "qwen2.5-7b", "llama3.1-8b")
SHOW = (
    "import socket, sys\n"
    "def refused(*arguments, **options): raise AssertionError('nothing may be downloaded')\n"
    "socket.socket.connect = socket.getaddrinfo = refused\n"
    "from featdiff.workflow.cli import main\n"
    "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code == 0\n"
    "assert not {'torch', 'transformers', 'datasets', 'lm_eval'} & set(sys.modules)\n"
)
STAGES = [
    *("sft", "grpo", "rft", "evaluate", "train", "quality", "attribute", "drift", "dynamics"),
    *("select", "intervene", "ways"),
    *("examples", "report"),
]


@pytest.fixture(params=PAPER)
def paper(request: pytest.FixtureRequest) -> Study:
    return read_study(STUDIES / f"{request.param}.toml")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_study_validates_and_plans_its_stages_under_its_own_name(path: Path) -> None:
    study = read_study(path)
    assert study.name == path.stem
    assert [stage.name for stage in stages_of(Plan(study))][-1] == "report"


@pytest.mark.parametrize("name", PAPER)
def test_show_lists_the_stages_and_downloads_nothing(name: str, tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SHOW, "show", str(STUDIES / f"{name}.toml")],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = [line.split() for line in shown.strip().split("\n\n")[-1].splitlines()]
    assert [(words[0], words[1]) for words in lines] == [("missing", stage) for stage in STAGES]
    assert list(tmp_path.iterdir()) == []


def test_the_backbones_are_those_of_the_paper() -> None:
    bases = [read_study(STUDIES / f"{name}.toml").lineup.base for name in PAPER]
    assert bases == ["Qwen/Qwen3-4B-Base", "Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B-Instruct"]


def test_post_training_is_that_of_appendix_a(paper: Study) -> None:
    posttrain = paper.posttrain
    assert posttrain is not None and posttrain.checkpoints == 5 and posttrain.reward == "math_verify"
    assert posttrain.teacher_model == "Qwen/Qwen3-32B"
    sft, grpo = posttrain.sft, posttrain.grpo
    assert (sft.lr, sft.batch_size, sft.epochs) == (5e-5, 128, 1)
    assert (grpo.lr, grpo.prompts_per_generation, grpo.prompts_per_step, grpo.rollouts) == (1e-6, 128, 64, 8)
    assert (grpo.clip_low, grpo.clip_high, grpo.beta, grpo.max_completion_length) == (0.22, 0.28, 0.0, 16384)
    assert grpo.epochs == 1


def test_crosscoders_are_those_of_appendix_a(paper: Study) -> None:
    assert paper.corpus.tokens == 400_000_000 and [source.share for source in paper.corpus.sources] == [0.5, 0.5]
    assert paper.crosscoder.features == 32768 and paper.crosscoder.sparsity == ReLU(weight=2.0, warmup=0.05)
    assert (paper.training.batch_size, paper.training.lr, paper.training.epochs) == (1024, 1e-4, 1)
    assert paper.lineup.layer is None  # the middle
    plan = Plan(paper)
    assert plan.crosscoders["joint"].models == ("base", "sft", "rl")
    assert plan.pair("sft") and plan.pair("rl") and plan.dynamics("sft") and plan.dynamics("rl")


def test_analysis_is_that_of_the_paper(paper: Study) -> None:
    roles = {task.name: task.role for task in paper.evaluation.tasks}
    assert [name for name, role in roles.items() if role == "unseen"] == ["logiqa", "piqa"]
    assert {"openbookqa", "commonsense_qa", "headqa_en", "sciq", "arc_challenge"} <= roles.keys()
    assert paper.attribution.norm_p == 1 and 0.8 in paper.attribution.tails and paper.dynamics.top == 50
    assert paper.selection.threshold == 0.2 and paper.intervention.amplify == 3.0


def test_the_demo_goes_through_every_stage_with_tasks_of_every_relation() -> None:
    demo = Plan(read_study(STUDIES / "demo.toml"))
    more = {"stability", "sensitivity"}
    assert [stage.name for stage in stages_of(demo) if stage.name not in more] == ["inputs", *STAGES]
    assert more < {stage.name for stage in stages_of(demo)}
    assert len(demo.seeds[demo.joint]) >= 3 and demo.follows == ("sft", "rl")
    assert all(demo.dynamics(tuned) and demo.per_checkpoint(tuned) and demo.swap(tuned) for tuned in demo.tuned)
    assert {task.role for task in demo.study.evaluation.tasks} == {"train", "near", "far", "unseen"}
    assert demo.study.posttrain is not None and demo.study.posttrain.grpo.rollouts == 8
