"""`featdiff plan`: a table that fits a terminal, for every study, without a network; the same numbers as JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import changed

from featdiff.config.study import Study
from featdiff.config.study_file import read_study
from featdiff.costs.assumptions import assumptions_of
from featdiff.workflow.demo import demo_study
from featdiff.workflow.estimate_table import PlanOptions, duration, plan_text, scaled, size
from featdiff.workflow.init import init

STUDIES = Path(__file__).parents[2] / "studies"
ALONE = (
    "import socket, sys\n"
    "def refused(*arguments, **options): raise AssertionError('nothing may be downloaded')\n"
    "socket.socket.connect = socket.getaddrinfo = refused\n"
    "from featdiff.workflow.cli import main\n"
    "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code == 0\n"
)


def text(study: Study, gpus: int = 1, kind: str | None = None, as_json: bool = False) -> str:
    return plan_text(study, PlanOptions(assumptions_of(study), gpus, kind, as_json))


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
@pytest.mark.parametrize(("gpus", "kind"), [(1, None), (8, "H100")], ids=["own", "eight"])
def test_the_table_of_every_study_fits_a_terminal(path: Path, gpus: int, kind: str | None) -> None:
    study = read_study(path)
    if path.stem == "stories260k" and not Path(study.lineup.base).is_dir():
        pytest.skip("the model of this study is not in the repository")
    lines = text(study, gpus, kind).splitlines()
    assert max(map(len, lines)) <= 100
    assert " ".join(lines[3].split()) == "stage devices FLOPs time memory per device disk after disk at most"
    assert lines[0].startswith(f"study {path.stem} on ") and any(line.startswith("total ") for line in lines)


def test_device_and_precision_are_named_and_a_gpu_that_the_study_leaves_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    study = read_study(demo_study())

    def said(device: str, dtype: str, kind: str | None, here: bool) -> tuple[str, list[str]]:
        monkeypatch.setattr("featdiff.workflow.estimate_table.gpu_is_here", lambda: here)
        placed = changed(study, lineup__device=device, lineup__dtype=dtype)
        line = text(placed, kind=kind).splitlines()[1]
        return line, json.loads(text(placed, kind=kind, as_json=True))["warnings"]

    assert said("cpu", "float32", None, False) == ("the study runs on device = cpu in float32", [])
    assert said("cuda", "bfloat16", "H200", True) == ("the study runs on device = cuda in bfloat16", [])
    (priced,) = said("cpu", "float32", "H200", False)[1]
    assert "costs of H200" in priced and 'lineup.device = "cuda"' in priced
    (idle,) = said("cpu", "float32", None, True)[1]
    assert "this machine has a GPU" in idle


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"corpus__tokens": 63_900}, ["499 steps"]),  # of 256 tokens, 2 epochs
        ({"corpus__tokens": 64_000}, []),
        ({"corpus__tokens": 25_000}, ["195 steps", "dead_after_tokens of crosscoder.sparsity is 50,000"]),
        ({"corpus__tokens": 25_001, "training__batch_size": 64}, []),
    ],
)
def test_too_few_tokens_for_the_dictionary_are_named(settings: dict[str, object], warned: list[str]) -> None:
    study = changed(read_study(demo_study()), **settings)
    found = json.loads(text(study, kind="cpu", as_json=True))["warnings"]
    assert len(found) == len(warned) and all(words in text for words, text in zip(warned, found, strict=True))


def test_it_neither_downloads_nor_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, "plan", str(STUDIES / "qwen2.5-7b.toml"), "--gpus", "8", "--kind", "H200"]
    shown = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "Base Qwen/Qwen2.5-7B: 7.62 G parameters; 28 blocks" in shown
    assert list(tmp_path.iterdir()) == []


def test_the_demo_is_estimated_from_its_packaged_base() -> None:
    assert "Base demo:base: 821 k parameters; 4 blocks of width 128" in text(read_study(demo_study()))


def test_a_study_made_by_init_is_estimated(tmp_path: Path) -> None:
    made = init("Qwen/Qwen2.5-0.5B", {"sft": "o/sft", "rl": "o/rl"}, tmp_path / "mine.toml")
    assert "494 M parameters" in text(read_study(made))


def test_a_stage_that_does_not_fit_is_marked_and_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = read_study(STUDIES / "llama3.1-8b.toml")
    lines = text(study, kind="H100").splitlines()
    assert any(line.startswith("sft ") and " GB ! " in line for line in lines)
    assert any(line.startswith("! sft does not fit: it needs") for line in lines)
    (tmp_path / "roomy.json").write_text('{"H100": {"memory": 8e11}}')
    monkeypatch.setenv("FEATDIFF_CALIBRATION", str(tmp_path / "roomy.json"))
    roomy = text(study, kind="H100")
    assert "!" not in roomy and "grpo is the fullest stage" in roomy


def test_json_holds_the_numbers_of_the_table() -> None:
    study = read_study(STUDIES / "qwen3-4b.toml")
    record, table = json.loads(text(study, as_json=True)), text(study)
    total = next(line for line in table.splitlines() if line.startswith("total "))
    assert total.split()[1:3] == scaled(record["total"]["flops"]).split()
    assert duration(record["total"]["seconds"]) in total and size(record["total"]["peak"]) in total
    assert record["total"]["flops"] == sum(stage["flops"] for stage in record["stages"])
    assert record["base"]["layers_below_the_tap"] == 18 and record["hardware"]["kind"] == "H200"


def test_the_disk_at_most_counts_what_earlier_stages_left() -> None:
    record = json.loads(text(read_study(STUDIES / "qwen3-4b.toml"), as_json=True))
    *before, train = record["stages"][:5]
    assert record["total"]["at_most"] == sum(one["stays"] for one in before) + train["at_most"]


def test_a_tap_that_the_base_does_not_have_is_refused() -> None:
    study = changed(read_study(STUDIES / "qwen3-4b.toml"), lineup__layer=37)
    with pytest.raises(ValueError, match=r"lineup.layer is 37, but the base has 36 blocks; choose 1\.\.36"):
        text(study)


def test_shards_that_do_not_divide_the_devices_are_refused() -> None:
    study = changed(read_study(STUDIES / "qwen3-4b.toml"), training__feature_shards=2)
    assert "in 2 groups that divide the tokens, 2 devices each" in " ".join(text(study, gpus=4).split())
    whole = changed(study, training__feature_shards=1)
    assert "they divide the tokens of a batch" in " ".join(text(whole, gpus=4).split())
    with pytest.raises(ValueError, match="feature_shards is 2, which does not divide --gpus 3"):
        text(study, gpus=3)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "-"),
        (0.2, "< 1 s"),
        (59, "59 s"),
        (120, "2 min"),
        (5400, "1.5 h"),
        (47 * 3600, "47 h"),
        (864_000, "10 days"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("held", "words"), [(0, "-"), (12, "12 B"), (999.6, "1.00 kB"), (80e9, "80.0 GB"), (999.6e9, "1.00 TB")]
)
def test_sizes_in_words(held: float, words: str) -> None:
    assert size(held) == words
