import nibabel
import numpy as np
import pytest

from zoo.data.io.images import ImageError, read_image

RAS = np.random.default_rng(0).normal(size=(10, 12, 14)).astype(np.float32)
"""A volume whose axes run to the patient's right, front and head."""
AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])


def write(path, volume, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
    return path


def unit(plane):
    return (plane - plane.min()) / np.ptp(plane)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PSR", "SAL", "ARI", "IPR", "RSA"])
def test_however_a_volume_is_stored_it_is_shown_as_a_radiologist_sees_it(tmp_path, codes):
    image = nibabel.Nifti1Image(RAS, AFFINE)
    target = nibabel.orientations.axcodes2ornt(codes)
    start = nibabel.orientations.axcodes2ornt("RAS")
    stored = image.as_reoriented(nibabel.orientations.ornt_transform(start, target))
    path = write(tmp_path / "volume.nii.gz", np.asarray(stored.dataobj), stored.affine)
    assert "".join(nibabel.aff2axcodes(stored.affine)) == codes
    # rows from the top, columns from the left: the patient's right is on the left, front or head on top
    axial = RAS[::-1, ::-1, 5].T
    coronal = RAS[::-1, 5, ::-1].T
    sagittal = RAS[5, ::-1, ::-1].T  # front on the left
    for axis, expected in enumerate((sagittal, coronal, axial)):
        np.testing.assert_allclose(read_image(path, axis=axis, index=5)[0], unit(expected), atol=1e-6)
    np.testing.assert_allclose(read_image(path, axis=2)[0], unit(RAS[::-1, ::-1, 7].T), atol=1e-6)


def test_a_mark_on_the_patients_right_is_on_the_left(tmp_path):
    volume = np.zeros((20, 20, 20), np.float32)
    volume[18, 15, 10] = 1  # far right, in front
    image = read_image(write(tmp_path / "mark.nii", volume), axis=2, index=10)[0]
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert (row, column) == (4, 1)


@pytest.mark.parametrize("shape", [(10, 12), (10, 12, 1), (10, 12, 1, 1), (10, 12, 1, 1, 1)])
def test_files_of_one_slice_need_no_axis(tmp_path, shape):
    path = write(tmp_path / "slice.nii", RAS[:, :, 0].reshape(shape))
    np.testing.assert_allclose(read_image(path)[0], unit(RAS[::-1, ::-1, 0].T), atol=1e-6)


def test_further_axes_of_length_one_are_left_out(tmp_path):
    path = write(tmp_path / "volume.nii", RAS[..., None])
    np.testing.assert_allclose(read_image(path, axis=1, index=3)[0], unit(RAS[::-1, 3, ::-1].T), atol=1e-6)


def test_colours(tmp_path):
    colours = np.zeros((10, 12, 14), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"], colours["B"] = 255, 51
    image = read_image(write(tmp_path / "colour.nii", colours), axis=2)
    np.testing.assert_allclose(image[:, 0, 0], [1, 0, 0.2], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((10, 12, 14), {}, "choose axis=0"),
        ((10, 12, 14), {"axis": 3}, "choose axis=0"),
        ((10, 12, 14), {"axis": 0, "index": 99}, "no slice 99; there are 0 to 9"),
        ((10, 12, 14), {"axis": 0, "index": -1}, "no slice -1"),
        ((10, 12, 14, 5), {"axis": 0}, "save one volume of a series"),
    ],
)
def test_refusals(tmp_path, shape, options, expected):
    with pytest.raises(ImageError, match=expected):
        read_image(write(tmp_path / "volume.nii", np.zeros(shape, np.float32)), **options)
