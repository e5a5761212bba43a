"""Masks in the forms of data sets, decoded when asked for."""

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from zoo.data.annotations.masks import CocoSegmentations, MaskFile, MaskFiles, Runs, read_label_map, unite
from zoo.data.io.images import ImageError
from zoo.data.io.masks import MaskError, encode_mask
from zoo.data.io.run_lengths import RunLengthError

SIZE = (6, 8)


def decoded(mask, size=SIZE):
    return coco.decode(mask.encode(size)).astype(bool)


def test_parts_of_one_mask_are_united():
    mask = Runs(("1 2", "47 2"), relative=False, column_major=False, first=1)
    assert np.flatnonzero(decoded(mask)).tolist() == [0, 1, 46, 47]
    with pytest.raises(RunLengthError, match="outside 6 x 4"):
        mask.encode((6, 4))


def test_a_mask_file_is_any_pixel_that_is_not_0_or_one_value(tmp_path):
    pixels = np.zeros(SIZE, np.uint8)
    pixels[1, 1], pixels[2, 2] = 1, 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert decoded(MaskFile(tmp_path / "a.png")).sum() == 2
    assert np.argwhere(decoded(MaskFile(tmp_path / "a.png", 200))).tolist() == [[2, 2]]
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    assert decoded(MaskFiles((tmp_path / "a.png", tmp_path / "a.tif"))).sum() == 2
    with pytest.raises(ImageError, match=r"a\.png: is 8x6 pixels and its image 9x6"):
        MaskFile(tmp_path / "a.png").encode((6, 9))


def test_faint_pixels_of_a_jpeg_are_no_mask(tmp_path):
    pixels = np.zeros((32, 32), np.uint8)
    pixels[8:24, 8:24] = 255
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=60)
    mask = decoded(MaskFile(tmp_path / "a.jpg"), (32, 32))
    assert (mask == (pixels > 0)).mean() > 0.99 and not mask[:6].any()


@pytest.mark.parametrize("mode", ["1", "P", "I;16", "RGB"])
def test_label_maps_of_every_mode_keep_their_values(tmp_path, mode):
    pixels = np.zeros(SIZE, np.uint8)
    pixels[3, 4] = 1 if mode == "1" else 3
    image = Image.fromarray(pixels.astype(bool) if mode == "1" else pixels)
    if mode == "P":
        image = Image.fromarray(pixels)
        image = image.convert("P")
        image.putpalette([0, 0, 0, 9, 9, 9] * 128)
    if mode == "I;16":
        image = Image.fromarray(pixels.astype(np.uint16) * 100)
    image = image.convert("RGB") if mode == "RGB" else image
    image.save(tmp_path / "a.png")
    values = read_label_map(tmp_path / "a.png")
    assert values.shape == SIZE and np.argwhere(values != 0).tolist() == [[3, 4]]
    assert int(values[3, 4]) == {"1": 1, "P": 3, "I;16": 300, "RGB": 9}[mode]


def test_damaged_mask_files_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    for name in ("a.png", "gone.png"):
        with pytest.raises(ImageError, match="cannot be read as a mask"):
            read_label_map(tmp_path / name)


def test_instances_are_united_whatever_their_form():
    left, right = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    left[:, :2], right[:, 6:] = True, True
    counts = [0, 12, 36]
    mask = CocoSegmentations(({"size": list(SIZE), "counts": counts}, encode_mask(right)))
    assert (decoded(mask) == (left | right)).all()
    assert decoded(CocoSegmentations(([[0, 0, 4, 0, 4, 6, 0, 6]],))).sum() == 24
    with pytest.raises(MaskError):
        CocoSegmentations(({"size": list(SIZE), "counts": [1, 2]},)).encode(SIZE)
    assert not coco.decode(unite([], SIZE)).any()
