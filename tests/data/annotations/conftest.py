"""Readers of the tiny public forms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.annotations.public_forms import FORMS
from zoo.config.building import resolve
from zoo.data.annotations.base import AnnotationSource

Build = Callable[..., AnnotationSource]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Writes a form into the test's folder, and builds its source with other arguments."""

    def build(name: str, **arguments: Any) -> AnnotationSource:
        node = FORMS[name](tmp_path / name)
        return resolve("annotation_source", {**node, **arguments}).build()

    return build
