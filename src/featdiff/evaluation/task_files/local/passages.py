"""Columns of LogiQA's rows, for its task file."""

import re

from datasets import Dataset

_PARTS = re.compile(r"Context: (.*)\nQuestion: (.*)\nChoices: A\. (.*)\nB\. (.*)\nC\. (.*)\nD\. (.*)", re.DOTALL)


def apart(rows: Dataset) -> Dataset:
    """Add the columns `passage`, `asked` and `options`. KeyError for a row of another form."""
    return rows.map(parts, input_columns="question")


def parts(question: str) -> dict[str, str | list[str]]:
    """Passage, question and the texts of the four choices."""
    found = _PARTS.fullmatch(question)
    if found is None:
        raise KeyError(f"Context, Question and Choices A. to D. in {question[:40]!r}")
    passage, asked, *options = found.groups()
    return {"passage": passage, "asked": asked, "options": options}
