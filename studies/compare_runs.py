"""Did a study give the same numbers when it was run again? Times, memory and the machine aside, all must be equal.

python studies/compare_runs.py studies/table2-cpu.json elsewhere/studies/table2-cpu.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEASURED = {"seconds", "seconds_per_step", "peak_bytes", "seconds of this command", "machine", "versions"}
"""What may differ from run to run."""


def numbers(record: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a record and where it stands."""
    if isinstance(record, dict):
        for key, value in record.items():
            if key not in MEASURED:
                yield from numbers(value, f"{place}/{key}")
    elif isinstance(record, list):
        for i, value in enumerate(record):
            yield from numbers(value, f"{place}[{i}]")
    else:
        yield place, record


def different(first: Any, second: Any) -> tuple[int, list[str]]:
    """The number of values of the first record, and the places where the second one has another or none."""
    ours, theirs = dict(numbers(first)), dict(numbers(second))
    absent = object()
    places = [place for place in {**ours, **theirs} if repr(ours.get(place, absent)) != repr(theirs.get(place, absent))]
    return len(ours), places


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs=2, type=Path, metavar="JSON")
    first, second = (json.loads(file.read_text(encoding="utf-8")) for file in parser.parse_args().files)
    count, places = different(first, second)
    print(f"{count} values, {len(places)} differ", *places, sep="\n")
    sys.exit(bool(places))
