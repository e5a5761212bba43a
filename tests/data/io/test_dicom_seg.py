import numpy as np
import pydicom
import pytest

from tests.data.io.dicom_files import write_dicom
from zoo.data.io.dicom_seg import check_segmentable, write_dicom_seg
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
    with pytest.raises(ImageError, match="has no mask; a DICOM SEG needs at least one"):
        write_dicom_seg(source, [], [], tmp_path / "seg.dcm")
    (tmp_path / "image.png").write_bytes(b"not DICOM")
    with pytest.raises(ImageError, match="is not a DICOM file"):
        write_dicom_seg(tmp_path / "image.png", [encode_mask(MASK)], ["mass"], tmp_path / "seg.dcm")


def test_a_mask_without_a_pixel_has_no_segment(source, tmp_path, caplog, capfd):
    """And nothing of it in the log, where highdicom would say what it does instead."""
    highdicom = pytest.importorskip("highdicom")
    empty = encode_mask(np.zeros_like(MASK))
    write_dicom_seg(source, [empty, encode_mask(MASK)], ["a nodule", "a mass"], tmp_path / "seg.dcm")
    segmentation = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert [segment.SegmentLabel for segment in segmentation.SegmentSequence] == ["1: a mass"]
    with pytest.raises(ImageError, match="no mask has a pixel; a DICOM SEG needs one that has"):
        write_dicom_seg(source, [empty, empty], ["a", "b"], tmp_path / "none.dcm")
    assert not (tmp_path / "none.dcm").exists()
    assert not caplog.records and capfd.readouterr() == ("", "")


def coded(segmentation):
    for segment in segmentation.SegmentSequence:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        side = kind.get("SegmentedPropertyTypeModifierCodeSequence")
        yield kind.CodeMeaning, kind.CodeValue, kind.CodingSchemeDesignator, side[0].CodeMeaning if side else None


def test_segments_are_coded_as_what_they_are_of(source, tmp_path):
    highdicom = pytest.importorskip("highdicom")
    labels = ["the left pleural effusion", "the cardiac silhouette", "", "something else"]
    question = "Where is the nodule?"
    write_dicom_seg(source, [encode_mask(MASK)] * 4, labels, tmp_path / "seg.dcm", question)
    segmentation = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert list(coded(segmentation)) == [
        ("Pleural effusion", "60046008", "SCT", "Left"),
        ("Heart", "80891009", "SCT", None),
        ("Nodule", "27925004", "SCT", None),
        ("Nodule", "27925004", "SCT", None),
    ]
    assert segmentation.SegmentSequence[2].SegmentLabel == "3: Where is the nodule?"


def test_an_anonymised_image_gives_a_segmentation_with_empty_attributes(source, tmp_path):
    highdicom = pytest.importorskip("highdicom")
    dataset = pydicom.dcmread(source)
    for name in ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyID", "StudyDate", "Modality"):
        delattr(dataset, name)
    dataset.PatientSex = "unknown"
    dataset.save_as(source)
    write_dicom_seg(source, [encode_mask(MASK)], ["mass"], tmp_path / "seg.dcm")
    segmentation = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert not segmentation.StudyID and not segmentation.PatientName and not segmentation.PatientSex
    del dataset.StudyInstanceUID
    dataset.save_as(source)
    with pytest.raises(ImageError, match="has no StudyInstanceUID, which a DICOM SEG must refer to"):
        write_dicom_seg(source, [encode_mask(MASK)], ["mass"], tmp_path / "other.dcm")


def test_dates_that_are_none_are_empty(source, tmp_path):
    highdicom = pytest.importorskip("highdicom")
    dataset = pydicom.dcmread(source)
    with pydicom.config.disable_value_validation():
        dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyTime = "19XX0101", "2020-01-01", "morning"
        dataset.save_as(source)
    write_dicom_seg(source, [encode_mask(MASK)], ["mass"], tmp_path / "seg.dcm")
    segmentation = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert not segmentation.PatientBirthDate and not segmentation.StudyDate and not segmentation.StudyTime


WHOLE = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"StudyInstanceUID": None}, "has no StudyInstanceUID, which a DICOM SEG must refer to"),
        ({"SeriesInstanceUID": None, "SOPClassUID": None}, "has no SOPClassUID, SeriesInstanceUID, which"),
        ({"SOPInstanceUID": ""}, "has no SOPInstanceUID"),
        ({"FrameOfReferenceUID": None, "SOPClassUID": CT}, "Frame Of Reference UID"),
        ({**WHOLE, "SOPClassUID": CT}, "has no PixelSpacing, which its kind of image must have"),
        ({"SOPClassUID": "1.2.3.4"}, "a DICOM SEG cannot refer to it"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({**WHOLE, "PixelSpacing": [1, 1], "SOPClassUID": CT}, None),
        ({"FrameOfReferenceUID": None}, None),
    ],
)
def test_what_an_image_lacks_is_found_without_masks(source, tmp_path, changes, message):
    pytest.importorskip("highdicom")
    dataset = pydicom.dcmread(source)
    for name, value in changes.items():
        delattr(dataset, name) if value is None else setattr(dataset, name, value)
    dataset.save_as(source)
    if message is None:
        check_segmentable(source)
        write_dicom_seg(source, [encode_mask(MASK)], ["mass"], tmp_path / "seg.dcm")
        return
    for check in (check_segmentable, lambda path: write_dicom_seg(path, [encode_mask(MASK)], ["mass"], tmp_path / "x")):
        with pytest.raises(ImageError, match=message):
            check(source)
