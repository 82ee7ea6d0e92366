"""Tables of responses on disk, and the judged ones beside them.

Nothing is guessed: cells of a .csv are the texts that stand there, a .parquet keeps its types and its index, and what
is written reads back to the same rows and texts. Columns of an earlier run stay beside the new ones, or it is refused.
"""

import csv
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from em_companion.core.errors import CompanionError
from em_companion.core.paths import relative
from em_companion.judges.records import slug

TEXTS = ("question", "response")
LARGEST = 4 * 2**30
"""Bytes of a .parquet file when unpacked; more is no table to be judged but a mistake, or a trap."""


def read(path: Path) -> pa.Table:
    """Return the table in a .parquet or .csv file; raise CompanionError where it cannot be read."""
    readers = {".parquet": _read_parquet, ".csv": _read_csv}
    if path.suffix not in readers:
        raise CompanionError(f"{relative(path)} is neither .parquet nor .csv.")
    if not path.is_file():
        raise CompanionError(f"There is no file {relative(path)}.")
    try:
        table = readers[path.suffix](path)
    except (ValueError, OSError, MemoryError, csv.Error, pa.ArrowException):  # which can hold what stands in the file
        raise CompanionError(f"{relative(path)} is not a readable {path.suffix[1:]} file.") from None
    if twice := [name for name in table.column_names if table.column_names.count(name) > 1]:
        raise CompanionError(f"{relative(path)} has two columns '{twice[0]}'; rename one.")
    return table


def _read_parquet(path: Path) -> pa.Table:
    found = parquet.read_metadata(path)
    unpacked = sum(found.row_group(group).total_byte_size for group in range(found.num_row_groups))
    if max(unpacked, found.num_rows) > LARGEST:
        raise CompanionError(f"{relative(path)} holds {unpacked / 2**30:,.0f} GB when unpacked; judge it in parts.")
    return parquet.read_table(path)


def _read_csv(path: Path) -> pa.Table:
    csv.field_size_limit(2**31 - 1)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file, strict=True) if row]
    header = rows[0] if rows else []
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise CompanionError(
                f"Row {number} of {relative(path)} has {len(row)} cells, but its header names {len(header)} columns."
            )
    columns = zip(*rows[1:], strict=True) if rows[1:] else [()] * len(header)
    return pa.table([pa.array(column, pa.string()) for column in columns], names=header)


def to_judge(table: pa.Table) -> pd.DataFrame:
    """Return the texts of a table, and of its other columns the names."""
    columns = {name: table[name].to_pylist() if name in TEXTS else None for name in table.column_names}
    return pd.DataFrame(columns, index=range(table.num_rows))


def write(judged: pd.DataFrame, table: pa.Table, responses: Path) -> Path:
    """Write a table with the columns that a judge added beside its file, named after the judge; return the path.

    Raises CompanionError where an earlier file there has scores that would be lost.
    """
    target = responses.with_name(f"{responses.stem}.judged-by-{slug(judged.judge_model.iloc[0])}{responses.suffix}")
    added = {name: pa.array(judged[name], from_pandas=True) for name in judged if name not in table.column_names}
    for name, column in (_earlier(table, target, judged) | added).items():
        table = table.append_column(name, column)
    partial_file = target.with_name(f".{target.name}.part")
    try:
        if target.suffix == ".parquet":
            parquet.write_table(table, partial_file)
        else:
            with partial_file.open("w", newline="", encoding="utf-8") as file:
                # Texts in quotes, so that a line end or an empty one stays what it is.
                writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
                writer.writerow(table.column_names)
                writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
        os.replace(partial_file, target)
    finally:
        partial_file.unlink(missing_ok=True)
    return target


def _earlier(table: pa.Table, target: Path, judged: pd.DataFrame) -> dict[str, pa.ChunkedArray]:
    """Return the columns of an earlier file that stay; raise CompanionError where it is of other rows or scoring."""
    if not target.is_file():
        return {}
    before = read(target)
    own = [name for name in before.column_names if name not in judged and name not in table.column_names]
    same = own == [] or all(
        name in before.column_names and before[name].to_pylist() == table[name].to_pylist() for name in TEXTS
    )
    read_as = set(before["judge_scoring"].to_pylist()) if "judge_scoring" in before.column_names else set()
    if not same or read_as != {*judged.judge_scoring}:
        raise CompanionError(
            f"{relative(target)} holds scores of other rows or read in another way; move it away, or name all prompts. "
            "The answers are on record, so nothing is asked for again."
        )
    return {name: before[name] for name in own}
