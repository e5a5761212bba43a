"""Image files of any bytes: pixels in [0, 1] or an error for users."""

import io
import json

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from tests.faults.arbitrary import bounded_memory, damaged_bytes, fuzz, value_or_error
from zoo.data.io.images import ImageError, image_size, read_image
from zoo.data.traces.records import read_valid_records

pytestmark = pytest.mark.filterwarnings("ignore")  # of the decoders, about damaged files
PIXELS = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10)


def _raster(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind)
    return buffer.getvalue()


def _dicom() -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = PIXELS.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.WindowCenter, dataset.WindowWidth, dataset.NumberOfFrames = 60, 120, 1
    dataset.PixelData = PIXELS.tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


FILES = {
    "a.png": _raster("png"),
    "a.jpg": _raster("jpeg"),
    "a.tif": _raster("tiff"),
    "a.jp2": _raster("jpeg2000"),
    "a.dcm": _dicom(),
    "a.nii": nibabel.Nifti1Image(np.ones((12, 10, 9), np.int16), np.eye(4)).to_bytes(),
}


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@fuzz
def test_any_bytes_are_an_image_or_an_error(tmp_path, name, data):
    file = tmp_path / name
    file.write_bytes(data.draw(damaged_bytes(FILES[name])))
    options = {"axis": 2} if name.endswith(".nii") else {}
    with bounded_memory():
        image = value_or_error(lambda: read_image(file, **options))
        value_or_error(lambda: image_size(file))
    if torch.is_tensor(image):
        assert image.dtype == torch.float32 and image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize("name", FILES)
def test_the_undamaged_files_are_read(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(FILES[name])
    assert sorted(read_image(file, **({"axis": 2} if name.endswith(".nii") else {})).shape) == [1, 10, 12]


def _pages(*suffixes_and_formats):
    return [pytest.param(*item, id=item[0]) for item in suffixes_and_formats]


@pytest.mark.parametrize(
    ("name", "kind"), _pages(("a.tif", "TIFF"), ("a.gif", "GIF"), ("a.png", "PNG"), ("a.webp", "WEBP"))
)
def test_an_image_of_several_pages_is_not_read_as_its_first(tmp_path, name, kind):
    first, second = (Image.fromarray(np.full((16, 16), value, np.uint8)) for value in (0, 200))
    first.save(tmp_path / name, kind, save_all=True, append_images=[second])
    with pytest.raises(ImageError, match="2 frames|frame"):
        read_image(tmp_path / name)
    assert read_image(tmp_path / name, frame=1).mean() > 0.7


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:40] + bytes(40) + data[80:]]
)
def test_every_image_of_a_record_is_looked_at(tmp_path, damage):
    Image.fromarray(PIXELS.repeat(8, 0).repeat(8, 1)).save(tmp_path / "film.png")
    Image.fromarray(PIXELS.repeat(8, 0).repeat(8, 1)).save(tmp_path / "crop.png")
    record = {
        "prompt": "<image> Report.",
        "response": "I look at the heart <image> Clear. Summarizing the previous analysis, I will generate the following "
        "report: Normal.",
        "images": ["film.png", "crop.png"],
    }
    (tmp_path / "traces.jsonl").write_text(json.dumps(record))
    assert len(read_valid_records(tmp_path / "traces.jsonl")[0]) == 1
    (tmp_path / "crop.png").write_bytes(damage((tmp_path / "crop.png").read_bytes()))
    records, problems = read_valid_records(tmp_path / "traces.jsonl")
    assert records == [] and len(problems) == 1 and "traces.jsonl:1: " in problems[0] and "crop.png" in problems[0]
