"""A table with a column for each label: 1 present, 0 absent, -1 uncertain, blank not stated, as CheXpert's tables are written."""

from pathlib import Path
from typing import Annotated

from zoo.data.annotations.base import AnnotatedImage, AnnotationError, AnnotationSource, Problems
from zoo.data.annotations.mimic_cxr_jpg import label_value
from zoo.data.io.tables import TableSpec
from zoo.registry import Unpacked, register


@register("annotation_source", "label_table")
class LabelTable(AnnotationSource):
    """Images with labels that do not exclude one another."""

    def __init__(
        self,
        table: str,
        labels: list[str],
        images: str | None = None,
        columns: Annotated[TableSpec, Unpacked] = TableSpec(),
    ) -> None:
        """Set the table.

        Args:
            table: the file, with a header.
            labels: names of the columns with labels.
            images: folder that paths are relative to; that of the table if None.
            columns: the names of the other columns, and how the table is written.

        Raises:
            AnnotationError: there are no labels.
        """
        if not labels:
            raise AnnotationError("labels is empty; name the columns with labels")
        self.table, self.images = Path(table), Path(images) if images else Path(table).parent
        self.label_names, self.columns = tuple(labels), columns

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`."""
        images: list[AnnotatedImage] = []
        spec = self.columns
        with problems.at(self.table):
            for line, row in spec.read(self.table, (spec.path_column, *self.label_names), problems.messages.append):
                with problems.at(f"{self.table}: line {line}"):
                    if not row[spec.path_column]:
                        raise AnnotationError(f"{spec.path_column} is empty")
                    values = {name: label_value(row[name]) for name in self.label_names}
                    images.append(
                        AnnotatedImage(
                            self.images / row[spec.path_column],
                            spec.split_of(row, self.table, line),
                            row.get(spec.patient_column) or None,
                            {name: value for name, value in values.items() if value is not None},
                        )
                    )
        return images
