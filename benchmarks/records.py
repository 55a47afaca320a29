"""What a run of the training-step benchmark found, as JSON and as a table in Markdown."""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rows import Row

MARK = "training-step"


@dataclass(frozen=True)
class Measured:
    """One row as one group of processes saw it."""

    row: Row
    born: dict
    """What the worker said at its start: versions, switches, memory after the imports."""
    wall: tuple[float, ...]
    """Seconds per step, a value a round."""
    cpu: tuple[float, ...]
    """CPU seconds per step, summed over threads."""
    peak_mib: float
    fits: tuple[dict[str, float], dict[str, float]]
    """How well it reconstructs, and with how many features, before the first and after the last step."""


def records(groups: Sequence[Sequence[Measured]], tokens: int) -> list[dict]:
    """A record per row. Ratios are taken within a row's own group; a row of several groups is pooled.

    >>> ratio = seconds of this row / seconds of featdiff's sparse row
    """
    names = list(dict.fromkeys(found.row.name for group in groups for found in group))
    return [_record([group for group in groups if _of(group, name)], name, tokens) for name in names]


def table(document: dict) -> str:
    """The records of a run in Markdown, with what they were measured on."""
    shape, machine = document["shape"], document["machine"]
    head = [
        f"{shape['name']}: {shape['models']} models, d_model {shape['d_model']}, {shape['features']:,} features, "
        f"batches of {shape['tokens']:,} tokens, L0 about {document['l0']:g}. "
        f"Medians of {document['rounds']} rounds of {document['steps_per_round']}.",
        "",
        f"{machine['cpu']}, {machine['threads']} threads, {machine['memory_gib']} GiB; {machine['system']}. "
        f"`{document['command']}`",
        "",
        "| trainer | version | ms per step | CPU ms | tokens/s | x sparse | x sparse, CPU | x 30 % active | peak MiB "
        "| of it imports | L0 | unexplained |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return "\n".join(head + [_line(record) for record in document["records"]])


def machine(threads: int) -> dict[str, object]:
    """What the numbers depend on, without a name of the machine."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _record(groups: Sequence[Sequence[Measured]], name: str, tokens: int) -> dict:
    found = [_of(group, name)[0] for group in groups]
    first = found[0]
    wall = [seconds for one in found for seconds in one.wall]
    return {
        "name": name,
        "version": first.born["version"],
        "torch": first.born["torch"],
        "python": first.born["python"],
        "switches": first.born["switches"],
        "median_seconds": statistics.median(wall),
        "fastest_seconds": min(wall),
        "slowest_seconds": max(wall),
        "cpu_seconds": statistics.median(seconds for one in found for seconds in one.cpu),
        "tokens_per_second": tokens / statistics.median(wall),
        "ratio": _ratio(groups[0], name, "featdiff sparse", "wall"),
        "cpu_ratio": _ratio(groups[0], name, "featdiff sparse", "cpu"),
        "ratio_to_dense": _ratio(groups[0], name, "featdiff auto-dense", "wall"),
        "peak_mib": max(one.peak_mib for one in found),
        "imports_mib": first.born["imports_mib"],
        "l0": [fit["l0"] for fit in first.fits],
        "unexplained": [fit["unexplained"] for fit in first.fits],
    }


def _of(group: Sequence[Measured], name: str) -> list[Measured]:
    return [found for found in group if found.row.name == name]


def _ratio(group: Sequence[Measured], name: str, yardstick: str, unit: str) -> float | None:
    """Median of one row over that of another of the same group; None where the other takes no part."""
    if not _of(group, yardstick):
        return None
    one, other = (statistics.median(getattr(_of(group, which)[0], unit)) for which in (name, yardstick))
    return one / other


def _line(record: dict) -> str:
    def times(ratio: float | None) -> str:
        return "" if ratio is None else f"{ratio:.2f}"

    cells = [
        record["name"],
        record["version"],
        f"{1000 * record['median_seconds']:.1f}",
        f"{1000 * record['cpu_seconds']:.1f}",
        f"{record['tokens_per_second']:,.0f}",
        times(record["ratio"]),
        times(record["cpu_ratio"]),
        times(record["ratio_to_dense"]),
        f"{record['peak_mib']:.0f}",
        f"{record['imports_mib']:.0f}",
        " to ".join(f"{l0:.0f}" for l0 in record["l0"]),
        " to ".join(f"{share:.3f}" for share in record["unexplained"]),
    ]
    return f"| {' | '.join(cells)} |"


def _cpu() -> str:
    """The processor, with what matters for matrix products."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    units = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    return f"{facts.get('model name', platform.machine())} family {facts.get('cpu family', '?')} ({', '.join(units)})"


def put_between(text: str, mark: str, tables: str) -> str:
    """`text` with `tables` between its lines `<!-- mark -->` and `<!-- /mark -->`; ValueError where it lacks them."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"the document lacks {begin.strip()} or {end}; add both, each on a line of its own")
    return f"{before}{begin}\n{tables}\n\n{end}{after}"


def main() -> None:
    """Print saved runs (`training_step.py --json`) as tables, or put them into a document."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, help=f"document with the lines <!-- {MARK} --> and <!-- /{MARK} -->")
    arguments = parser.parse_args()
    tables = "\n\n".join(table(json.loads(path.read_text(encoding="utf-8"))) for path in arguments.files)
    if arguments.into is None:
        print(tables)
        return
    try:
        text = put_between(arguments.into.read_text(encoding="utf-8"), MARK, tables)
    except ValueError as error:
        sys.exit(f"records.py: {arguments.into}: {error}")
    arguments.into.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
