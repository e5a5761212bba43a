import numpy as np
import pydicom
import pytest

from tests.data.io.test_images import write_dicom
from zoo.data.io.dicom_seg import write_dicom_seg
from zoo.data.io.images import ImageError
from zoo.data.io.masks import encode_mask

MASK = np.zeros((16, 20), dtype=bool)
MASK[4:9, 3:12] = True


@pytest.fixture
def source(tmp_path):
    path = write_dicom(tmp_path / "image.dcm", np.arange(320, dtype=np.uint16).reshape(16, 20))
    dataset = pydicom.dcmread(path)
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    dataset.FrameOfReferenceUID = pydicom.uid.generate_uid()
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(dataset, name, "")
    for name in ("StudyDate", "StudyTime", "ReferringPhysicianName", "SeriesNumber", "InstanceNumber"):
        setattr(dataset, name, None)
    dataset.Modality = "DX"
    dataset.save_as(path)
    return path


def test_masks_are_segments_that_refer_to_their_image(source, tmp_path):
    highdicom = pytest.importorskip("highdicom")
    masks = [encode_mask(MASK), encode_mask(~MASK)]
    write_dicom_seg(source, masks, ["left mass", "x" * 100], tmp_path / "out" / "seg.dcm")
    segmentation = highdicom.seg.segread(tmp_path / "out" / "seg.dcm")
    uid = pydicom.dcmread(source).SOPInstanceUID
    pixels = segmentation.get_pixels_by_source_instance([uid])[0]
    assert np.array_equal(pixels[..., 0] > 0, MASK) and np.array_equal(pixels[..., 1] > 0, ~MASK)
    labels = [segment.SegmentLabel for segment in segmentation.SegmentSequence]
    assert labels[0] == "1: left mass" and labels[1] == "2: " + "x" * 61


def test_other_sources_and_no_masks_are_refused(source, tmp_path):
    pytest.importorskip("highdicom")
    with pytest.raises(ImageError, match="a DICOM SEG needs at least one mask on a single-frame image"):
        write_dicom_seg(source, [], [], tmp_path / "seg.dcm")
    (tmp_path / "image.png").write_bytes(b"not DICOM")
    with pytest.raises(ImageError, match="is not a DICOM file"):
        write_dicom_seg(tmp_path / "image.png", [encode_mask(MASK)], ["mass"], tmp_path / "seg.dcm")
