"""A CSV table of run lengths, one row a mask, in any of their variants; Kaggle's is absolute from 1, down the columns."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Literal

from zoo.data.annotations.base import AnnotatedImage, AnnotationError, AnnotationSource, Problems, Region
from zoo.data.annotations.masks import Runs
from zoo.data.io.tables import TableSpec
from zoo.registry import Unpacked, register


@register("annotation_source", "run_length_table")
class RunLengthTable(AnnotationSource):
    """Images with masks as run lengths; rows of one image and label are parts of one mask, and a row without run lengths has none."""

    def __init__(
        self,
        table: str,
        images: str | None = None,
        mask_column: str = "mask",
        target: str = "lesion",
        order: Literal["columns", "rows"] = "columns",
        starts: Literal["absolute", "relative"] = "absolute",
        first: Literal[0, 1] = 1,
        columns: Annotated[TableSpec, Unpacked] = TableSpec(),
    ) -> None:
        """Set the table.

        Args:
            table: the file, with a header.
            images: folder that paths are relative to; that of the table if None.
            mask_column: the column of run lengths; blank and -1 are no mask.
            target: what masks are of where the table has no column of labels.
            order: whether pixels are counted down the columns, or along the rows.
            starts: whether a start counts from the first pixel, or from the end of the run before.
            first: number of the first pixel.
            columns: the names of the columns, and how the table is written.
        """
        self.table, self.images = Path(table), Path(images) if images else Path(table).parent
        self.mask_column, self.target, self.columns = mask_column, target, columns
        self.order, self.starts, self.first = order, starts, first

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`."""
        spec = self.columns
        masks: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        facts: dict[str, tuple[str | None, str | None]] = {}
        with problems.at(self.table):
            for line, row in spec.read(self.table, (spec.path_column, self.mask_column), problems.messages.append):
                with problems.at(f"{self.table}: line {line}"):
                    path, runs = row[spec.path_column], row[self.mask_column]
                    if not path:
                        raise AnnotationError(f"{spec.path_column} is empty")
                    own = spec.split_of(row, self.table, line), row.get(spec.patient_column) or None
                    if facts.setdefault(path, own) != own:
                        raise AnnotationError(f"{path} has another split or patient than in an earlier row")
                    if runs not in ("", "-1"):
                        masks[path][row.get(spec.label_column) or self.target].append(runs)
        names = sorted({name for named in masks.values() for name in named})
        return [
            AnnotatedImage(
                self.images / path,
                split,
                patient,
                {name: float(name in masks[path]) for name in names},
                tuple(Region(name, mask=self._runs(texts)) for name, texts in masks[path].items()),
            )
            for path, (split, patient) in facts.items()
        ]

    def _runs(self, texts: list[str]) -> Runs:
        return Runs(
            tuple(texts), relative=self.starts == "relative", column_major=self.order == "columns", first=self.first
        )
