import warnings

import numpy as np
import pytest
from PIL import Image

from tests.data.io.dicom_files import RAMP
from zoo.data.io.images import ImageError, image_size, read_image
from zoo.errors import ZooWarning

BYTES = (RAMP * 255).astype(np.uint8)
SUFFIXES = (".png", ".jpg", ".tif", ".jp2", ".bmp", ".webp")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_8_bit_files(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(BYTES).save(path)
    np.testing.assert_allclose(read_image(path)[0], RAMP, atol=0.03)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_modes(tmp_path, mode):
    """Whatever a file holds, the picture is the one that is seen: black on the left, white on the right."""
    picture = np.zeros((16, 20), np.uint8)
    picture[:, 10:] = 255
    if mode in ("I;16", "I", "F"):
        image = Image.fromarray(picture.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]) * 257)
    else:
        image = Image.fromarray(picture).convert(mode)
    image.save(tmp_path / "image.tif")
    pixels = read_image(tmp_path / "image.tif").numpy()
    assert pixels.shape[0] == (1 if mode in ("1", "L", "LA", "I;16", "I", "F") else 3)
    np.testing.assert_allclose(pixels, np.broadcast_to(picture / 255, pixels.shape), atol=0.02)


ORIENTATIONS = {  # which corner of the picture as shown is at the start of the rows and columns as stored
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.T,
    6: lambda shown: shown.T[::-1],
    7: lambda shown: shown[::-1, ::-1].T,
    8: lambda shown: shown.T[:, ::-1],
}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("depth", [8, 16])
def test_exif_orientation(tmp_path, suffix, orientation, depth):
    """Of every format that carries one, in pixels and in sizes alike: white is on the top left as every viewer shows it."""
    if depth == 16 and suffix in (".jpg", ".webp"):
        pytest.skip("has 8 bits")
    shown = np.zeros((60, 40), np.uint16 if depth == 16 else np.uint8)
    shown[:20, :10] = (1 << depth) - 1
    shown[20:, 30:] = (1 << (depth - 1)) - 1
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(np.ascontiguousarray(ORIENTATIONS[orientation](shown))).save(path, exif=exif)
    image = read_image(path)
    assert tuple(image.shape[-2:]) == (60, 40) == image_size(path)
    assert float(image[0, 2, 2]) > 0.95 and float(image[0, 50, 2]) < 0.05 and 0.4 < float(image[0, 50, 36]) < 0.6


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_files_keep_their_depth(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(path)
    np.testing.assert_allclose(read_image(path)[0], RAMP, atol=1 / 65535)
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(tmp_path / "image.jp2")
    np.testing.assert_allclose(read_image(tmp_path / "image.jp2")[0], RAMP, atol=1e-3)


@pytest.mark.parametrize("used", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_bits_in_use_of_a_16_bit_file_are_found_and_said(tmp_path, used, suffix):
    path = tmp_path / f"detector{suffix}"
    Image.fromarray((RAMP * ((1 << used) - 1)).astype(np.uint16)).save(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.testing.assert_allclose(read_image(path)[0], RAMP, atol=1.1 / (1 << used))
        read_image(path)
    said = [str(warning.message) for warning in caught if issubclass(warning.category, ZooWarning)]
    assert len(said) == (used < 16)  # once for a folder
    assert all(f"needs {used} of them" in message for message in said)


def test_bits_in_use_may_be_told(tmp_path):
    path = tmp_path / "dark.png"
    Image.fromarray((RAMP * 1000).astype(np.uint16)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(read_image(path, bits=16)[0], RAMP * 1000 / 65535, atol=1 / 65535)
        np.testing.assert_allclose(read_image(path, bits=12)[0], RAMP * 1000 / 4095, atol=1 / 4095)
    with pytest.raises(ImageError, match="has the value 1000, which needs more than bits=8"):
        read_image(path, bits=8)


def test_16_bit_colours(tmp_path):
    """Pillow would keep the upper 8 bits, of which 12-bit values have next to nothing."""
    import torch
    from torchvision.io import write_file

    torch.manual_seed(0)
    colours = (np.stack([RAMP, RAMP[::-1], 0 * RAMP]) * 4095).astype(np.uint16)
    write_file(str(tmp_path / "deep.png"), torch.frombuffer(bytearray(_deep_png(colours)), dtype=torch.uint8))
    with pytest.warns(ZooWarning, match="needs 12 of them"):
        image = read_image(tmp_path / "deep.png")
    np.testing.assert_allclose(image, colours / 4095, atol=1e-3)


def _deep_png(colours: np.ndarray) -> bytes:
    """A PNG of 16-bit colours (3, rows, columns), which Pillow does not write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    _, rows, columns = colours.shape
    lines = colours.transpose(1, 2, 0).astype(">u2").reshape(rows, -1)
    scan = b"".join(b"\0" + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", columns, rows, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(scan)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_and_signed_values_are_scaled_by_their_extremes(tmp_path, dtype):
    Image.fromarray((RAMP * 200_000 - 1000).astype(dtype)).save(tmp_path / "map.tif")
    np.testing.assert_allclose(read_image(tmp_path / "map.tif")[0], RAMP, atol=1e-4)


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png"])
def test_a_page_of_several_is_chosen_explicitly(tmp_path, suffix):
    pages = [Image.fromarray(np.ascontiguousarray(page)) for page in (BYTES, BYTES[::-1])]
    path = tmp_path / f"pages{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:], **({"lossless": True} if suffix == ".webp" else {}))
    with pytest.raises(ImageError, match="has 2 frames; choose one with frame=0 to frame=1"):
        read_image(path)
    np.testing.assert_allclose(read_image(path, frame=1)[0], RAMP[::-1], atol=0.02)
    with pytest.raises(ImageError, match="no frame 2"):
        read_image(path, frame=2)


def test_a_damaged_exif_block_is_passed_over(tmp_path):
    Image.fromarray(BYTES).save(tmp_path / "photo.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 20)
    np.testing.assert_allclose(read_image(tmp_path / "photo.jpg")[0], RAMP, atol=0.03)
