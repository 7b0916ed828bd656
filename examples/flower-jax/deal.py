"""Deals the data to three owners, none of whom has all digits: python deal.py FOLDER"""

import gzip
import sys
from itertools import cycle
from pathlib import Path

OWNERS = range(3)
DATA = Path(__file__).parent / "data" / "digits.csv.gz"


def deal(folder: Path) -> None:
    """Write each owner's file: one has no 0, 1, 2, one no 3, 4, 5, and one no 6, 7, 8."""
    turns = {str(digit): cycle([i for i in OWNERS if i != digit // 3]) for digit in range(10)}
    parts: list[list[str]] = [[] for _ in OWNERS]
    with gzip.open(DATA, "rt") as rows:
        for row in rows:
            digit = row.strip().rpartition(",")[2]
            parts[next(turns[digit])].append(row)
    folder.mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(parts):
        (folder / f"owner-{i}.csv").write_text("".join(part))


if __name__ == "__main__":
    deal(Path(sys.argv[1]))
