import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from zoo.data.io.images import ImageError, read_image

RAMP = np.linspace(0, 1, 16 * 20).reshape(16, 20)


def write_dicom(path, pixels, **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".jp2"])
def test_8_bit_files(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    Image.fromarray((RAMP * 255).astype(np.uint8)).save(path)
    image = read_image(path)
    assert image.shape == (1, 16, 20)
    np.testing.assert_allclose(image[0], RAMP, atol=0.03)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2"])
def test_16_bit_files_keep_their_depth(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(path)
    image = read_image(path)
    np.testing.assert_allclose(image[0], RAMP, atol=1 / 65535 if suffix != ".jp2" else 1e-3)
    assert len(np.unique(image)) > 300


def test_colour_files_have_three_channels(tmp_path):
    Image.fromarray(np.stack([(RAMP * 255).astype(np.uint8)] * 3, axis=-1)).save(tmp_path / "colour.png")
    assert read_image(tmp_path / "colour.png").shape == (3, 16, 20)


def test_dicom_rescale_window_sign_and_inversion(tmp_path):
    stored = (RAMP * 2000 - 1000).astype(np.int16)
    plain = read_image(write_dicom(tmp_path / "plain.dcm", stored))
    np.testing.assert_allclose(plain[0], RAMP, atol=1e-3)
    window = {"WindowCenter": 0, "WindowWidth": 1000, "RescaleSlope": 2, "RescaleIntercept": 0}
    windowed = read_image(write_dicom(tmp_path / "window.dcm", stored, **window))
    np.testing.assert_allclose(windowed[0], np.clip((RAMP * 4000 - 2000 + 500) / 1000, 0, 1), atol=3e-3)
    inverted = read_image(write_dicom(tmp_path / "inverted.dcm", stored, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(inverted[0], 1 - RAMP, atol=1e-3)


def test_a_frame_of_a_multi_frame_dicom_is_chosen_explicitly(tmp_path):
    frames = np.stack([(RAMP * 100).astype(np.uint16), (RAMP[::-1] * 100).astype(np.uint16)])
    path = write_dicom(tmp_path / "frames.dcm", frames)
    with pytest.raises(ImageError, match="has 2 frames; choose one"):
        read_image(path)
    np.testing.assert_allclose(read_image(path, frame=1)[0], RAMP[::-1], atol=0.02)
    with pytest.raises(ImageError, match="no frame 2; there are 0 to 1"):
        read_image(path, frame=2)


def test_nifti_slices(tmp_path):
    volume = np.random.default_rng(0).normal(size=(10, 12, 14)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "volume.nii.gz")
    image = read_image(tmp_path / "volume.nii.gz", axis=1, index=3)
    assert image.shape == (1, 14, 10)
    expected = np.rot90(volume[:, 3])
    np.testing.assert_allclose(image[0], (expected - expected.min()) / np.ptp(expected), atol=1e-5)
    with pytest.raises(ImageError, match="choose axis"):
        read_image(tmp_path / "volume.nii.gz")
    with pytest.raises(ImageError, match="no slice 99"):
        read_image(tmp_path / "volume.nii.gz", axis=0, index=99)


def test_bad_files_say_what_is_wrong(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "gone.png")
    (tmp_path / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    with pytest.raises(ImageError, match="corrupt.png: cannot be read as an image"):
        read_image(tmp_path / "corrupt.png")
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "one.png")
    with pytest.raises(ImageError, match="is 1x1 pixels; the minimum is 8x8"):
        read_image(tmp_path / "one.png")
    nan = np.full((16, 16), np.nan, np.float32)
    Image.fromarray(nan).save(tmp_path / "nan.tif")
    with pytest.raises(ImageError, match="256 pixels that are NaN"):
        read_image(tmp_path / "nan.tif")
    nibabel.save(nibabel.Nifti1Image(nan[..., None].repeat(9, -1), np.eye(4)), tmp_path / "nan.nii")
    with pytest.raises(ImageError, match="NaN"):
        read_image(tmp_path / "nan.nii", axis=2)
    with pytest.raises(ImageError, match="only of a DICOM"):
        read_image(tmp_path / "one.png", frame=0)


def test_a_truncated_dicom_is_refused(tmp_path):
    path = write_dicom(tmp_path / "whole.dcm", (RAMP * 100).astype(np.uint16))
    content = path.read_bytes()
    for length in (140, len(content) // 2, len(content) - 100):
        (tmp_path / "cut.dcm").write_bytes(content[:length])
        with pytest.raises(ImageError, match=r"cut\.dcm"):
            read_image(tmp_path / "cut.dcm")


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.data.io.images.MAX_PIXELS", 100)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "large.png")
    with pytest.raises(ImageError, match="million pixels"):
        read_image(tmp_path / "large.png")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=300),
    start=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\0" * 128 + b"DICM", b"\x1f\x8b", b"II*\0"]
    ),
    suffix=st.sampled_from([".png", ".jpg", ".dcm", ".nii", ".nii.gz", ".tif"]),
)
def test_any_bytes_are_read_or_refused_but_nothing_else(tmp_path, content, start, suffix):
    path = tmp_path / f"any{suffix}"
    path.write_bytes(start + content)
    try:
        read_image(path, axis=0)
    except ImageError as error:
        assert str(path) in str(error)


def test_pydicoms_own_sample_files_read():
    from pydicom.data import get_testdata_file

    for name in ("CT_small.dcm", "MR_small.dcm"):
        image = read_image(get_testdata_file(name, download=False))
        assert image.ndim == 3 and 0 <= float(image.min()) < float(image.max()) <= 1
    assert pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False)).PixelRepresentation == 1
