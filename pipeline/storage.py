"""Atomic files: Parquet tables of records, JSON, text. A reader never sees half a file."""

import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import islice, pairwise
from pathlib import Path
from typing import Generic, TypeVar, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError, first_line
from pipeline.records import Detection, EncodedImage, arrow_schema, holds_images

Row = TypeVar("Row")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the body succeeds.

    The name is fixed, so that what a killed run left is overwritten by the next one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def held_lock(path: Path, shared: bool, work: str) -> Iterator[None]:
    """Hold a file's lock while in the body, with all others that share it or alone.

    A process that ends in any way lets go of it. Raises InputError, which says what
    ``work`` another process is at, when that holds it in a way that does not go with this one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process {work}; wait for its end, or stop it") from None
        yield


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, keys sorted; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_csv(
    path: Path, rows: Sequence[dict[str, object]], columns: Sequence[str] | None = None
) -> None:
    """Write dicts of equal keys as CSV, atomically; floats to six significant digits.

    ``columns`` are their keys, for a table that may have no rows; without them ValueError.
    """
    if not (rows or columns):
        raise ValueError(f"{path} has no rows: its columns must be given")
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    write_text(path, buffer.getvalue())


def read_table(path: Path) -> list[dict[str, str]]:
    """Read the cells of a CSV as they are; InputError when it is missing or damaged."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; `dvc repro` makes it") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, error) from error


def read_csv(path: Path) -> list[dict[str, float]]:
    """Read the numbers of a CSV; InputError when it is missing or holds something else."""
    rows = read_table(path)
    try:
        return [{k: float(v) for k, v in row.items()} for row in rows]
    except (TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def read_json(path: Path) -> dict:
    """Read a JSON object; InputError when missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; `dvc repro` makes it") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged ({first_line(error)}); delete it and run `dvc repro`")


def group_rows(row_type: type) -> int:
    """Rows of a Parquet row group, what a reader holds at once: few where they carry images."""
    return 64 if holds_images(row_type) else 1024


def write_rows(path: Path, row_type: type[Row], rows: Iterable[Row]) -> int:
    """Write records as one Parquet file, atomically, and return how many.

    Rows are taken as they come, and no more of them are held than a row group has.
    """
    schema, written, rows = arrow_schema(row_type), 0, iter(rows)
    with (
        atomic_path(Path(path)) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as file,
    ):
        while group := list(islice(rows, group_rows(row_type))):
            file.write_table(_to_table(row_type, group, schema))
            written += len(group)
            group.clear()  # before the next one is gathered
    return written


def _to_table(row_type: type[Row], rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    columns = {
        f.name: [_to_cell(getattr(row, f.name)) for row in rows] for f in fields(row_type)
    }  # fmt: skip
    return pa.table(columns, schema=schema)


def _to_cell(value: object) -> object:
    if isinstance(value, EncodedImage):
        return asdict(value)
    if isinstance(value, dict):
        return [{"name": name, "value": value[name]} for name in sorted(value)]
    if isinstance(value, tuple):
        return [asdict(entry) for entry in value]
    return value


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """Read the records of one Parquet file, or of every ``*.parquet`` in a folder by name.

    Raises InputError when it is missing, damaged, or lacks a column of the row type.
    """
    return list(stream_rows(path, row_type))


def stream_rows(path: Path, row_type: type[Row]) -> Iterator[Row]:
    """``read_rows`` one after another, holding no more of them than a row group has."""
    for cells in stream_columns(path, row_type, [f.name for f in fields(row_type)]):
        yield row_type(*cells)


def stream_columns(path: Path, row_type: type, columns: Sequence[str]) -> Iterator[tuple]:
    """Some columns of ``stream_rows``, as a tuple a row; the others are not read."""
    hints = get_type_hints(row_type)
    for file in _parquet_files(Path(path)):
        for table in _read_groups(file, list(columns)):
            yield from zip(*(_from_column(table[c], hints[c]) for c in columns), strict=True)


@dataclass(frozen=True)
class StoredRows(Generic[Row]):
    """The rows of a file, streamed anew whenever they are gone through."""

    path: Path
    row_type: type[Row]

    def __iter__(self) -> Iterator[Row]:
        return stream_rows(self.path, self.row_type)


def read_column(path: Path, column: str) -> list:
    """One column of a Parquet file, without reading the others."""
    return _read_table(Path(path), [column])[column].to_pylist()


def read_columns(path: Path, keys: str, values: str) -> dict:
    """Two columns of a Parquet file as a mapping, without reading the others."""
    table = _read_table(Path(path), [keys, values])
    return dict(zip(table[keys].to_pylist(), table[values].to_pylist(), strict=True))


def holds_columns(path: Path, row_type: type) -> bool:
    """Whether a Parquet file has exactly a row type's columns; InputError for a damaged one."""
    with _opened(path) as file:
        return file.schema_arrow.names == [f.name for f in fields(row_type)]


def _parquet_files(path: Path) -> list[Path]:
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def _read_table(path: Path, columns: list[str]) -> pa.Table:
    return pa.concat_tables(_read_groups(path, columns))


def _read_groups(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Columns of a Parquet file by row group, at least one table."""
    with _opened(path) as file:
        present = file.schema_arrow.names
        missing = [c for c in columns if c not in present]
        if missing:
            raise InputError(
                f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(present)}. "
                "Run `dvc repro` to write it anew"
            )
        if not file.num_row_groups:
            yield file.read(columns)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path} is missing; `dvc repro` or `dvc pull` brings it") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path} is not a readable Parquet file ({first_line(error)}); delete it and "
            "run `dvc repro` again"
        ) from error


def _from_column(column: pa.ChunkedArray, hint: type) -> Iterable[object]:
    if hint == dict[str, float]:
        return _to_dicts(column.combine_chunks())
    cells = column.to_pylist()
    if hint is EncodedImage:
        return (EncodedImage(**cell) for cell in cells)
    if hint == tuple[Detection, ...]:
        return (tuple(Detection(**entry) for entry in cell) for cell in cells)
    return cells


def _to_dicts(column: pa.ListArray) -> Iterator[dict[str, float]]:
    """Cells of (name, value) entries as dicts that share their keys."""
    names, values = column.flatten().flatten()
    coded = names.dictionary_encode()
    names = np.array(coded.dictionary.to_pylist(), object)[coded.indices].tolist()
    values = values.to_numpy(zero_copy_only=False).tolist()
    ends = np.cumsum([0, *column.value_lengths().to_pylist()]).tolist()
    for start, end in pairwise(ends):
        yield dict(zip(names[start:end], values[start:end], strict=True))


def file_id(path: Path) -> str:
    """The id of a file's content: the first 16 hex digits of its SHA-256; InputError if missing."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except FileNotFoundError:
        raise InputError(f"there is no {path}") from None


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can enter (mode 0700), for prompts, images and latents."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def run_folder(folder: Path, run_id: str) -> Path:
    """A run's own private folder in a private ``folder``; what other runs left there is removed."""
    private_folder(folder)
    own = private_folder(folder / run_id)
    remove_except(folder, [own])
    return own


def remove_except(folder: Path, keep: Iterable[Path]) -> None:
    """Delete everything in a folder that is not listed, so that no stale output survives."""
    keep = set(keep)
    for entry in folder.iterdir():
        if entry not in keep:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
