"""The Python of the README runs, on small models, texts and tasks in the places that it names."""

import re
import shutil
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
SMALLER = {
    "context=1024": "context=64",
    "features=16384": "features=64, batch_size=256, lr=1e-2",
    "k=64": "k=12",
    '["arc_challenge", "openbookqa"]': '["colours", "animals"], task_folder="tasks"',
    "controls=100": "controls=5, bootstrap=100",
}
"""What the study of the tests has instead."""


def test_the_snippet_runs(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for theirs, ours in SMALLER.items():
        assert theirs in snippet, theirs
        snippet = snippet.replace(theirs, ours)
    for name in ("base", "sft", "rl"):
        shutil.copytree(study_file.parent / name, tmp_path / "models" / name)
    shutil.copytree(study_file.parent / "tasks", tmp_path / "tasks")
    shutil.copy(study_file.parent / "prose.txt", tmp_path / "texts.txt")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(snippet, str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert "variance_explained=" in printed and "'alive': " in printed and "underpowered" in printed
    assert {"crosscoder", "mas", "critical", "chosen", "effect"} <= set(names)
