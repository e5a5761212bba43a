"""Tables as files: CSV and its kin, gzipped or not, read row by row with the line of each."""

import csv
import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ZooError, counted

Row = dict[str, str]
"""A row by its column names; values without the space around them."""
Report = Callable[[str], None]
"""Takes a message about a row."""

SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    "training": "train",
    "trainval": "train",
    "validate": "val",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
}
"""What splits are called elsewhere."""
_MAX_FIELD = 50_000_000
"""Characters of a field: the run lengths and landmarks of a large image take megabytes."""


class TableError(ZooError, ValueError):
    """A malformed table; the message has file and line."""


def canonical_split(name: str) -> str | None:
    """``train``, ``val`` or ``test`` for a split's name in whatever case; None for another word."""
    name = name.lower()
    return name if name in SPLITS else _SPLIT_NAMES.get(name)


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """How a table is written. In a recipe, the fields are arguments of what reads it.

    Attributes:
        path_column: the column of image paths.
        label_column: the column of labels, where a row has one.
        patient_column: the column of patients, if there is one.
        split_column: the column of splits, if there is one.
        split_names: what the table calls the splits, {name in the table: train, val or test}; None understands common names, as
            validate and Testing.
        separator: between fields; a tab is one too.
        encoding: of the file, as utf-8, cp1252 or utf-16; a byte order mark is not part of the text.

    Raises:
        TableError: a separator is not one character, or an encoding unknown.
    """

    path_column: str = "path"
    label_column: str = "label"
    patient_column: str = "patient"
    split_column: str = "split"
    split_names: dict[str, str] | None = None
    separator: str = ","
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        """Check what can be checked without a file."""
        if len(self.separator) != 1:
            raise TableError(f"separator is {self.separator!r}; it must be one character")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise TableError(f"encoding is {self.encoding!r}, which Python does not know") from None
        if wrong := set((self.split_names or {}).values()) - set(SPLITS):
            raise TableError(f"split_names has {', '.join(sorted(wrong))}; splits are train, val and test")

    def read(self, path: Path, required: Sequence[str], report: Report | None = None) -> Iterator[tuple[int, Row]]:
        """Rows with the line that each ends on; see :func:`read_table`."""
        return read_table(path, required, self.separator, self.encoding, report)

    def split_of(self, row: Mapping[str, str], path: Path, line: int) -> str | None:
        """The split of a row: train, val or test; None where it has none.

        Raises:
            TableError: it has another one.
        """
        name = row.get(self.split_column)
        if not name:
            return None
        split = canonical_split(name) if self.split_names is None else self.split_names.get(name)
        if split is None:
            known = "train, val and test" if self.split_names is None else ", ".join(self.split_names)
            raise TableError(f"{path}: line {line}: split '{name}' is none of {known}; name it in split_names")
        return split


def read_table(
    path: Path,
    required: Sequence[str] = (),
    separator: str = ",",
    encoding: str = "utf-8",
    report: Report | None = None,
) -> Iterator[tuple[int, Row]]:
    """Rows of a table with a header, each with the line that it ends on; blank lines are left out.

    Args:
        path: the file; gzipped if its name ends in .gz.
        required: columns that it must have.
        separator: between fields.
        encoding: of the text; a byte order mark is not part of it.
        report: called with a message for each row of more or fewer fields than the header, which is left out; None raises.

    Raises:
        TableError: the file is missing or not in the encoding, a column is missing or there twice, or a row has more or fewer
            fields than the header.
    """
    if not path.is_file():
        raise TableError(f"{path}: there is no such file")
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    csv.field_size_limit(_MAX_FIELD)
    line = 0
    try:
        with (
            gzip.open(path, "rt", newline="", encoding=encoding)
            if path.suffix == ".gz"
            else path.open(newline="", encoding=encoding) as file
        ):
            reader = csv.reader(file, delimiter=separator, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, required)
            for fields in reader:
                line = reader.line_num
                if not any(map(str.strip, fields)):
                    continue
                if len(fields) != len(header):
                    counts = f"has {counted(len(fields), 'field')} and the header {len(header)}"
                    message = f"{path}: line {line}: {counts}; quote a field that contains the separator"
                    if report is None:
                        raise TableError(message)
                    report(message)
                    continue
                yield line, dict(zip(header, map(str.strip, fields), strict=True))
    except (UnicodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
        raise TableError(
            f"{path}: line {line + 1}: is not a readable table in {encoding}: {error}; say how it is stored, as encoding=cp1252"
        ) from error


def _check_header(path: Path, header: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        shown = ", ".join(header) or "no header"
        other = next((mark for mark in (";", "\t", "|", ",") if len(header) == 1 and mark in header[0]), None)
        hint = f"; say what separates them, as separator={other!r}" if other else ""
        if not other and "path" in required:
            hint = "; name yours, as path_column=file label_column=class"
        raise TableError(f"{path}: needs the columns {' and '.join(required)}; it has {shown}{hint}")
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1 and name})
        if twice:
            raise TableError(f"{path}: has the column {twice[0]} more than once")
