"""Lets lm-eval read the items that lie beside the task files, wherever the folder is."""

import json
from pathlib import Path

from datasets import Dataset


def load(file: str, **_: object) -> dict[str, Dataset]:
    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
