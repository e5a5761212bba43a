"""Every reader of a public form: whatever its files hold, a list of images and problems, or an error for users."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.annotations.public_forms import FORMS
from tests.faults.arbitrary import as_json, bounded_memory, changed_json, damaged_bytes, fuzz, value_or_error
from zoo.config.building import resolve
from zoo.data.annotations.base import AnnotationError, Problems

PICTURES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")


def _text_of(file: Path) -> bytes:
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def _damaged(file: Path) -> st.SearchStrategy[bytes]:
    """The content of a file, damaged: as JSON where it is, and as bytes."""
    content = _text_of(file)
    try:
        lines = [json.loads(content)] if file.suffix == ".json" else [json.loads(content.splitlines()[0])]
    except (ValueError, IndexError, UnicodeDecodeError):
        return damaged_bytes(content)
    return st.one_of(damaged_bytes(content), changed_json(lines[0]).map(as_json))


def _read(node: dict) -> None:
    """Read everything that a source has, masks too."""
    source = resolve("annotation_source", node).build()
    images = source.scan_images(Problems())
    for image in images:
        for region in image.regions:
            if region.mask is not None:
                value_or_error(lambda region=region: region.mask.encode((24, 32)))
    value_or_error(source.read)


@pytest.mark.parametrize("name", FORMS)
@given(data=st.data())
@fuzz
def test_damaged_files_are_problems_or_errors(tmp_path_factory, name, data):
    root = tmp_path_factory.getbasetemp() / f"form-{name}"
    folder = root / "form"
    if not root.exists():
        FORMS[name](folder)
        shutil.copytree(folder, root / "whole")
    node = FORMS_AS_WRITTEN.setdefault(name, FORMS[name](folder))
    files = sorted(
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix not in PICTURES
    )
    if not files:
        return
    file = data.draw(st.sampled_from(files))
    _write(folder / file, data.draw(_damaged(root / "whole" / file)))
    try:
        with bounded_memory():
            value_or_error(lambda: _read(node))
    finally:
        shutil.copyfile(root / "whole" / file, folder / file)


FORMS_AS_WRITTEN: dict[str, dict] = {}


def test_an_array_whose_header_is_damaged_is_an_error(tmp_path):
    import zipfile

    node = FORMS["medmnist"](tmp_path)
    with zipfile.ZipFile(node["file"]) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(node["file"], "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data.replace(b"}", b"(", 1))
    with pytest.raises(AnnotationError, match="is not a readable npz file: TokenError"):
        resolve("annotation_source", node).build().read()
