import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset

from tests.data.io.dicom_files import RAMP, write_dicom
from zoo.data.io.images import (
    ImageError,
    ImageOptions,
    check_options,
    find_image_files,
    image_size,
    pixel_area,
    read_image,
)


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
    with pytest.raises(ImageError, match="has no frame 1; there are 0 to 0"):
        read_image(tmp_path / "one.png", frame=1)


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.data.io.pixels.MAX_PIXELS", 100)
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


def test_options_are_checked_from_the_header(tmp_path):
    """Whatever the header lets pass is read, and what is refused says which option chooses."""
    Image.fromarray((RAMP * 255).astype(np.uint8)).save(tmp_path / "plain.png")
    nibabel.save(nibabel.Nifti1Image(np.random.rand(9, 10, 11), np.eye(4)), tmp_path / "volume.nii")
    frames = np.stack([(RAMP * 100).astype(np.uint16)] * 3)
    write_dicom(tmp_path / "frames.dcm", frames)
    for name, options in (("plain.png", {}), ("volume.nii", {"axis": 2}), ("frames.dcm", {"frame": 2})):
        check_options(tmp_path / name, ImageOptions(**options))
        assert ImageOptions(**options).read(tmp_path / name).ndim == 3
    for name, options, expected in (
        ("plain.png", {"frame": 1}, "no frame 1"),
        ("volume.nii", {}, "choose axis=0"),
        ("volume.nii", {"axis": 2, "index": 11}, "no slice 11; there are 0 to 10"),
        ("frames.dcm", {}, "choose one with frame=0 to frame=2"),
        ("frames.dcm", {"frame": 3}, "no frame 3"),
    ):
        for attempt in (check_options, lambda path, options: options.read(path)):
            with pytest.raises(ImageError, match=expected):
                attempt(tmp_path / name, ImageOptions(**options))


def test_the_size_is_that_of_the_image_as_read(tmp_path):
    Image.fromarray((RAMP * 255).astype(np.uint8)).save(tmp_path / "plain.png")
    write_dicom(tmp_path / "image.dcm", (RAMP * 100).astype(np.uint16))
    nibabel.save(nibabel.Nifti1Image(np.random.rand(9, 10, 1), np.eye(4)), tmp_path / "flat.nii")
    for path in tmp_path.iterdir():
        assert image_size(path) == tuple(read_image(path).shape[-2:])


def test_the_area_of_a_pixel(tmp_path):
    pixels = (RAMP * 100).astype(np.uint16)
    assert pixel_area(write_dicom(tmp_path / "plain.dcm", pixels)) is None
    assert pixel_area(write_dicom(tmp_path / "film.dcm", pixels, ImagerPixelSpacing=[0.1, 0.2])) == pytest.approx(0.02)
    measures, group = Dataset(), Dataset()
    measures.PixelSpacing = [0.5, 2]
    group.PixelMeasuresSequence = [measures]
    shared = write_dicom(tmp_path / "shared.dcm", pixels, SharedFunctionalGroupsSequence=[group])
    assert pixel_area(shared) == pytest.approx(1)
    nibabel.save(nibabel.Nifti1Image(np.random.rand(9, 10, 11), np.diag([2, 3, 4, 1])), tmp_path / "volume.nii")
    areas = [pixel_area(tmp_path / "volume.nii", ImageOptions(axis=axis)) for axis in range(3)]
    assert areas == [12, 8, 6]
    Image.fromarray((RAMP * 255).astype(np.uint8)).save(tmp_path / "plain.png")
    assert pixel_area(tmp_path / "plain.png") is None and pixel_area(tmp_path / "volume.nii") is None


def test_a_broken_link_in_a_folder_is_an_image_that_cannot_be_read(tmp_path):
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    images, others = find_image_files(tmp_path)
    assert [path.name for path in images] == ["broken.png"] and others == []
    with pytest.raises(ImageError, match=r"broken.png"):
        read_image(images[0])
