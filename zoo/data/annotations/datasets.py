"""What datasets of annotated images share: a source that is read once, checked, and divided into splits."""

import warnings
from functools import cached_property

from zoo.data.annotations.base import AnnotatedImage, AnnotationSource, Problems
from zoo.data.annotations.splits import divide
from zoo.data.base import ZooData
from zoo.errors import ZooWarning


class AnnotatedData(ZooData):
    """A dataset of what a source yields; the source's licence and limitations are the dataset's."""

    annotations: AnnotationSource

    def use_source(self, source: AnnotationSource) -> None:
        """Take the source; nothing is read yet."""
        self.annotations, source.read_file = source, self.read_file
        self.license, self.source, self.limitations = source.license, source.source, source.limitations

    @cached_property
    def images(self) -> dict[str, list[AnnotatedImage]]:
        """The images by split; what the source leaves out by design is a warning.

        Raises:
            AnnotationError: the data set has problems, or cannot be divided; see :meth:`AnnotationSource.read`.
        """
        problems = Problems()
        images = self.annotations.scan_images(problems)
        problems.raise_if_any()
        for note in problems.notes:
            warnings.warn(note, ZooWarning, stacklevel=2)
        return divide(images, self.loader.seed)
