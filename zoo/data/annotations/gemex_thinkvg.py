"""GEMeX-ThinkVG (Liu et al., arXiv 2506.17939): questions about MIMIC-CXR films whose answers come with reasoning and boxes.

Of the text of a response only ``<answer>`` is documented. A chain of thought is read as its sentences (reconstructed): each bracket of four
numbers is a box in pixels, and its sentence, without tags and brackets, the statement about it.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.data.annotations.base import AnnotatedImage, AnnotationError, AnnotationSource, Box, Problems, Region
from zoo.data.io.json_lines import read_lines
from zoo.registry import register

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_NUMBER = r"\s*-?\d+(?:\.\d+)?\s*"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
_REFERENCE = re.compile(r"<(?:ref|region)>(.*?)</(?:ref|region)>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?\w+>")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z<])|\n+")
_MAX_LINE = 1_000_000
_COLUMNS = ("image_path", "question", "response")


@register("annotation_source", "gemex_thinkvg")
class GemexThinkVg(AnnotationSource):
    """One question an item, with its answer as the report, and a region for each box of its reasoning."""

    license = "PhysioNet Credentialed Health Data License 1.5.0 for the films; CC BY-NC 4.0 for the questions"
    source = "GEMeX-ThinkVG, https://huggingface.co/datasets/BoKelvin/GEMeX-ThinkVG, films of MIMIC-CXR-JPG"
    limitations = "Questions and reasoning were written by a language model."

    def __init__(self, file: str, images: str, question_types: list[str] | None = None) -> None:
        """Set the files.

        Args:
            file: the parquet file (needs pyarrow), or its rows as JSON Lines.
            images: folder that image paths, which begin with a slash, are relative to.
            question_types: which to read, as open_ended_questions; all if None.
        """
        self.file, self.images, self.question_types = Path(file), Path(images), question_types

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`; all rows are of the training split, and divided by patient."""
        images: list[AnnotatedImage] = []
        with problems.at(self.file):
            for number, row in self._rows(problems):
                if self.question_types is not None and row.get("question_type") not in self.question_types:
                    continue
                with problems.at(f"{self.file}: row {number}"):
                    images.append(self._item(row))
        return images

    def _rows(self, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
        if not self.file.is_file():
            raise AnnotationError(f"{self.file}: there is no such file")
        if self.file.suffix == ".parquet":
            import pandas

            try:
                table = pandas.read_parquet(self.file)
            except ImportError as error:
                raise AnnotationError(
                    f"{self.file}: parquet files need the package pyarrow: pip install pyarrow"
                ) from error
            missing = [name for name in _COLUMNS if name not in table]
            if missing:
                raise AnnotationError(f"{self.file}: has no column {', '.join(missing)}; it has {', '.join(table)}")
            yield from enumerate(table.to_dict("records"), start=1)
            return
        for number, line in read_lines(self.file, _MAX_LINE):
            with problems.at(f"{self.file}: row {number}"):
                content = json.loads(line)
                if not isinstance(content, dict):
                    raise AnnotationError("is not a JSON object")
                yield number, content

    def _item(self, row: dict[str, Any]) -> AnnotatedImage:
        path = Path(str(row["image_path"]).lstrip("/"))
        if ".." in path.parts:
            raise AnnotationError(f"'{path}' leaves the image folder")
        answer = _ANSWER.search(str(row["response"]))
        if answer is None or not answer.group(1).strip():
            raise AnnotationError("the response has no <answer>")
        patient = next((part for part in path.parts if re.fullmatch(r"p\d{8}", part)), None)
        return AnnotatedImage(
            self.images / path,
            None,
            patient,
            regions=tuple(_regions(str(row["response"])[: answer.start()] + str(row["response"])[answer.end() :])),
            report=" ".join(answer.group(1).split()),
            questions=((" ".join(str(row["question"]).split()), " ".join(answer.group(1).split())),),
        )


def _regions(reasoning: str) -> Iterator[Region]:
    for sentence in _SENTENCE.split(reasoning):
        for match in _BOX.finditer(sentence):
            left, top, right, bottom = json.loads(match.group())
            if not (left < right and top < bottom):
                raise AnnotationError(f"the box {match.group()} is empty")
            box: Box = (float(left), float(top), float(right), float(bottom))
            reference = _REFERENCE.search(sentence)
            words = " ".join(_TAG.sub(" ", _BOX.sub(" ", sentence)).split())
            words = re.sub(r"\s+([.,;:!?])", r"\1", words).strip(" :,;()")
            name = " ".join(reference.group(1).split()) if reference else words.rstrip(".")
            yield Region(name.lower(), boxes=(box,), sentence=words)
