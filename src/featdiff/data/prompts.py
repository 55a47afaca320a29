"""The prompts that both paradigms see, each with its gold answer (Sec. 4, A.2)."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from featdiff.config.study import PosttrainSettings
from featdiff.data.rows import Row, jsonl_rows, parquet_rows


@dataclass(frozen=True)
class Prompt:
    """One question and its gold answer."""

    id: str
    prompt: str
    answer: str


def load_prompts(settings: PosttrainSettings) -> list[Prompt]:
    """Load the prompts of `posttrain.prompts`, in the order of the file; without a column `id` it is the row number.

    ValueError when file or column is missing, a prompt or an answer is no text, an id occurs twice, or no row is there.
    """
    rows = read_rows(settings.prompts, setting="posttrain.prompts")[: settings.limit]
    if not rows:
        raise ValueError(f"posttrain.prompts: {settings.prompts} holds no rows; give at least one prompt")
    prompts = [
        Prompt(
            id=text_of(row, "id", settings.prompts, number) if "id" in row else str(number),
            prompt=text_of(row, settings.prompt_field, settings.prompts, number),
            answer=text_of(row, settings.answer_field, settings.prompts, number),
        )
        for number, row in enumerate(rows)
    ]
    repeated, times = Counter(prompt.id for prompt in prompts).most_common(1)[0]
    if times > 1:
        where = settings.prompts
        raise ValueError(f"{where}: the id {repeated!r} occurs twice; ids must be distinct, or leave the column out")
    return prompts


def read_rows(path: str, *, setting: str) -> list[Row]:
    """Read the rows of a .jsonl or .parquet file; `setting` is named when they cannot be read."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{setting}: no file {path}; give a .jsonl or .parquet file")
    if file.suffix not in (".jsonl", ".json", ".parquet"):
        raise ValueError(f"{setting}: {path} ends in {file.suffix or 'nothing'}; .jsonl and .parquet can be read")
    try:
        return [row for _, row in (parquet_rows(file) if file.suffix == ".parquet" else jsonl_rows(file))]
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from None


def text_of(row: Row, column: str, path: str, number: int) -> str:
    """A column of a row as text; numbers are written out. ValueError when it is absent, empty or anything else."""
    if column not in row:
        raise ValueError(f"{path}: row {number} has no column {column!r}; it has {', '.join(sorted(row))}")
    match row[column]:
        case str(text) if text.strip():
            return text
        case bool() | int() | float() as value:
            return str(value)
        case value:
            found = "is empty" if value is None or isinstance(value, str) else f"holds a {type(value).__name__}"
            raise ValueError(f"{path}: column {column!r} of row {number} {found}; text is wanted")
