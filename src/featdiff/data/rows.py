"""Rows of JSONL and parquet files, one after another, each with the place that an error names."""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

Row = Mapping[str, object]


def jsonl_rows(file: Path) -> Iterator[tuple[str, Row]]:
    """Read the objects of a JSONL file, empty lines left out. Raises ValueError for a line that holds none."""
    with reading(file), file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where} is not JSON ({error.msg}); mend or remove the line") from error
            if not isinstance(row, dict):
                found = type(row).__name__
                raise ValueError(f"{where} holds {found}, not an object; a row looks like {{'text': '...'}}")
            yield where, row


def parquet_rows(file: Path, column: str | None = None) -> Iterator[tuple[str, Row]]:
    """Read the rows of a parquet file; only `column` where it has one. Raises ValueError as `reading`."""
    with reading(file), parquet.ParquetFile(file) as table:
        columns = [column] if column in table.schema_arrow.names else None
        for batch in table.iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                yield str(file), row


@contextmanager
def reading(file: Path) -> Generator[None]:
    """Turn what goes wrong while a file is read into a ValueError of one line."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text; convert it, or leave it out") from error
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"cannot read {file} ({' '.join(str(error).split())}); mend it, or leave it out") from error
