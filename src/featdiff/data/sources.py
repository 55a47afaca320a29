"""Documents from files on this machine: text, JSONL, parquet, and folders of those."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

from featdiff.config.study import SourceSettings
from featdiff.data.rows import Row, jsonl_rows, parquet_rows, reading

KINDS = {".txt": "text", ".text": "text", ".md": "text", ".jsonl": "jsonl", ".parquet": "parquet"}
BLOCK = 1 << 20  # characters of a text file that are read at a time
OPENING = 1 << 16  # characters from which the length of a token is estimated
BUFFER = 10_000  # documents that are held while their order is drawn


def on_this_machine(source: SourceSettings) -> bool:
    """Whether a source is a path here rather than a hub data set. Raises ValueError for a path that leads nowhere."""
    path = Path(source.path).expanduser()
    if source.kind == "hub":
        return False
    if path.exists():
        return True
    looks_local = source.path.startswith((".", "~", "/")) or path.suffix in KINDS or source.path.count("/") > 1
    if source.kind == "auto" and not looks_local:
        return False
    raise ValueError(f"the corpus source {source.path} does not exist; check the path")


def documents(source: SourceSettings, characters: int, random: Random) -> Iterator[str]:
    """Read the documents of a local source, files in random order: a row each, or about `characters` of a text file.

    Raises ValueError for a folder without readable kinds of file, and for a file that is not what its ending says.
    """
    listed = files(source)
    random.shuffle(listed)
    for file, kind in listed:
        if kind == "text":
            yield from _text(file, characters)
            continue
        for where, row in jsonl_rows(file) if kind == "jsonl" else parquet_rows(file, source.field):
            yield text_of(row, source.field, where)


def files(source: SourceSettings) -> list[tuple[Path, str]]:
    """List the files of a local source with their kinds, by name."""
    path = Path(source.path).expanduser()
    if path.is_file():
        kind = KINDS.get(path.suffix) if source.kind == "auto" else source.kind
        if kind is None:
            raise ValueError(f"the corpus source {path} ends in none of {', '.join(KINDS)}; set its kind")
        return [(path, kind)]
    wanted = set(KINDS.values()) if source.kind == "auto" else {source.kind}
    found = [file for file in sorted(path.rglob("*")) if file.is_file() and KINDS.get(file.suffix) in wanted]
    if not found:
        raise ValueError(f"the corpus source {path} holds no file of kind {' or '.join(sorted(wanted))}")
    return [(file, KINDS[file.suffix]) for file in found]


def opening(source: SourceSettings) -> str:
    """Read the first characters of the source's first text file; empty where it has none."""
    for file, kind in files(source):
        if kind == "text":
            with reading(file), file.open(encoding="utf-8") as stream:
                return stream.read(OPENING)
    return ""


def shuffled(texts: Iterator[str], random: Random, buffer: int = BUFFER) -> Iterator[str]:
    """Shuffle documents: a uniform permutation of up to `buffer`, and of more a local one."""
    held = list(islice(texts, buffer))
    for text in texts:
        index = random.randrange(len(held))
        yield held[index]
        held[index] = text
    random.shuffle(held)
    yield from held


def text_of(row: Row, field: str, where: str) -> str:
    """The text of a row. Raises ValueError, naming `where`, for an absent column and for one that holds no text."""
    if field not in row:
        raise ValueError(f"{where} has no column {field!r}, only {', '.join(row)}; set the source's field")
    text = row[field]
    if not isinstance(text, str):
        raise ValueError(f"column {field!r} of {where} holds {type(text).__name__}, not text; set the source's field")
    return text


def _text(file: Path, characters: int) -> Iterator[str]:
    """Read a text file in documents of at most so many characters, cut after a paragraph, else a line, else a word."""
    text = ""
    with reading(file), file.open(encoding="utf-8") as stream:
        while block := stream.read(max(BLOCK, characters)):
            text, start = text + block, 0
            while len(text) - start > characters:
                end = _end(text, start, characters)
                yield text[start:end]
                start = end
            text = text[start:]
    yield text


def _end(text: str, start: int, characters: int) -> int:
    for separator in ("\n\n", "\n", " "):
        found = text.rfind(separator, start + characters // 2, start + characters)
        if found >= 0:
            return found + len(separator)
    return start + characters
