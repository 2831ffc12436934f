"""Tables that users bring, in any format: cells as text, errors that name rows by number."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError, first_line


def read_cells(
    where: str, path: Path, columns: Mapping[str, str], remedy: str = ""
) -> list[dict[str, str]]:
    """The named cells of a file's rows as strings; '' where a cell is empty.

    Args:
        where: begins every error's message.
        path: a .csv, .tsv, .jsonl (an object a line), .parquet, or .txt (a prompt a line, of which
            the one column is made that is called ``prompt`` here).
        columns: the file's name of each column by ours.
        remedy: what to do about a file or a column that is not there.

    Raises InputError when the file cannot be read, or lacks a column in some row.
    """
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv"):
            rows = _read_separated(where, path, "," if kind == ".csv" else "\t")
        elif kind == ".jsonl":
            rows = _read_lines(where, path)
        elif kind == ".parquet":
            rows = pq.read_table(path).to_pylist()
        elif kind == ".txt":
            lines = path.read_text(encoding="utf-8-sig").split("\n")
            rows = [{columns["prompt"]: line.strip()} for line in lines if line.strip()]
        else:
            raise InputError(f"{where} is none of .csv, .tsv, .jsonl, .parquet, .txt")
    except FileNotFoundError:
        raise InputError(f"{where} is not there{remedy and f'; {remedy}'}") from None
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise InputError(f"{where} cannot be read: {first_line(error)}") from error
    table = []
    for k, row in enumerate(rows):
        if lacking := [name for name in columns.values() if name not in row]:
            raise InputError(f"{where} data row {k} has no column {lacking[0]!r}; it has "
                             f"{len(row)} others{remedy and f'; {remedy}'}")  # fmt: skip
        table.append({
            name: _cell(f"{where} data row {k}", row[name], name) for name in columns.values()
        })  # fmt: skip
    return table


def _read_separated(where: str, path: Path, separator: str) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=separator)
        header = next(reader, None)
        if header is None:
            raise InputError(f"{where} is empty")
        rows = []
        for cells in reader:
            if cells and len(cells) != len(header):
                raise InputError(
                    f"{where} data row {len(rows)} has {len(cells)} fields, the header "
                    f"{len(header)}; a field with a {separator!r} in it needs quotes"
                )
            if cells:
                rows.append(dict(zip(header, cells, strict=True)))
    return rows


def _read_lines(where: str, path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{where} line {number} is no JSON object")
        rows.append(row)
    return rows


def _cell(where: str, value: object, column: str) -> str:
    if isinstance(value, list | dict):
        raise InputError(f"{where} holds a list in {column!r}; a text or a number is expected")
    return "" if value is None or value != value else str(value)


def column_names(path: Path) -> set[str]:
    """The column names of a .csv, .tsv or .parquet; InputError when it cannot be read."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".csv", ".tsv", ".parquet"):
        raise InputError(f"{path} is none of .csv, .tsv, .parquet")
    try:
        if kind == ".parquet":
            return set(pq.read_schema(path).names)
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator = "\t" if kind == ".tsv" else ","
            return set(next(csv.reader(file, delimiter=separator), []))
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}") from error
