"""Every combination of photometric interpretation, bit depth, sign, palette and transfer syntax gives the true values."""

import io
from itertools import product

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.data.io.dicom_files import RAMP, make_dicom, save, save_encoded, write_dicom
from zoo.data.io.images import ImageError, image_size, read_image

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
DEPTHS = ((8, 8), (16, 10), (16, 12), (16, 16), (32, 32))
COLOUR = np.stack([200 * RAMP, 60 + 100 * RAMP[::-1], 30 + 0 * RAMP], axis=-1).round().astype(np.uint8)


def to_ybr(colours, bits=8):
    """PS3.3 C.7.6.3.1.2 for any depth."""
    half = 1 << (bits - 1)
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return (colours.astype(float) @ matrix.T + [0, half, half]).round().clip(0, 2 * half - 1)


def channels(path):
    return read_image(path).numpy().transpose(1, 2, 0)


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless, JPEGLSLossless], ids=lambda syntax: syntax.name[:20])
@pytest.mark.parametrize(("allocated", "stored"), DEPTHS)
def test_grey_of_every_depth_sign_and_polarity(tmp_path, syntax, allocated, stored):
    if syntax.is_encapsulated and allocated == 32:
        pytest.skip("pydicom compresses 16 bits at most")
    for signed, photometric in product((False, True), ("MONOCHROME1", "MONOCHROME2")):
        low = -(1 << (stored - 1)) if signed else 0
        values = (low + RAMP * ((1 << stored) - 1)).round().astype(f"{'i' if signed else 'u'}{allocated // 8}")
        tags = {"BitsStored": stored, "PhotometricInterpretation": photometric, "syntax": syntax}
        path = write_dicom(tmp_path / "grey.dcm", values, **tags)
        expected = 1 - RAMP if photometric == "MONOCHROME1" else RAMP
        np.testing.assert_allclose(
            read_image(path)[0], expected, atol=0.6 / ((1 << stored) - 1) + 1e-6, err_msg=str(tags)
        )


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless, JPEGLSLossless], ids=lambda syntax: syntax.name[:20])
@pytest.mark.parametrize("allocated", [8, 16])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colours_of_every_depth(tmp_path, syntax, allocated, photometric):
    if syntax.is_encapsulated and (photometric, allocated) == ("YBR_FULL", 16):
        pytest.skip("pydicom compresses YBR_FULL of 8 bits alone")
    colours = COLOUR.astype(float) * (257 if allocated == 16 else 1)
    stored = (colours if photometric == "RGB" else to_ybr(colours, allocated)).astype(f"u{allocated // 8}")
    tags = {"syntax": syntax, "samples": 3, "PhotometricInterpretation": photometric}
    np.testing.assert_allclose(channels(write_dicom(tmp_path / "c.dcm", stored, **tags)), COLOUR / 255, atol=2 / 255)


def test_colours_by_plane_and_with_shared_chrominance(tmp_path):
    dataset, _ = make_dicom(COLOUR, samples=3, PlanarConfiguration=1)
    path = save(tmp_path / "planes.dcm", dataset, COLOUR.transpose(2, 0, 1))
    np.testing.assert_allclose(channels(path), COLOUR / 255)
    pairs = to_ybr(np.repeat(COLOUR[:, ::2], 2, axis=1))  # two pixels have one chrominance
    packed = np.stack([pairs[:, ::2, 0], pairs[:, 1::2, 0], pairs[:, ::2, 1], pairs[:, ::2, 2]], axis=-1)
    dataset, _ = make_dicom(COLOUR, samples=3, PhotometricInterpretation="YBR_FULL_422")
    path = save(tmp_path / "422.dcm", dataset, packed.astype(np.uint8))
    np.testing.assert_allclose(channels(path), np.repeat(COLOUR[:, ::2], 2, axis=1) / 255, atol=2 / 255)


def codestream(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("photometric", ["RGB", "YBR_RCT"])
def test_jpeg_2000(tmp_path, photometric):
    dataset, _ = make_dicom(COLOUR, syntax=JPEG2000Lossless, samples=3, PhotometricInterpretation=photometric)
    stream = codestream(COLOUR, format="JPEG2000", no_jp2=True, mct=int(photometric == "YBR_RCT"), irreversible=False)
    np.testing.assert_allclose(channels(save_encoded(tmp_path / "c.dcm", dataset, stream)), COLOUR / 255, atol=1e-6)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2"])
def test_baseline_jpeg(tmp_path, subsampling):
    photometric = "YBR_FULL" if subsampling == "4:4:4" else "YBR_FULL_422"
    dataset, _ = make_dicom(COLOUR, syntax=JPEGBaseline8Bit, samples=3, PhotometricInterpretation=photometric)
    stream = codestream(COLOUR, format="JPEG", quality=100, subsampling=subsampling)
    np.testing.assert_allclose(channels(save_encoded(tmp_path / "c.dcm", dataset, stream)), COLOUR / 255, atol=4 / 255)
    grey = (RAMP * 255).astype(np.uint8)
    dataset, _ = make_dicom(grey, syntax=JPEGBaseline8Bit)
    path = save_encoded(tmp_path / "grey.dcm", dataset, codestream(grey, format="JPEG", quality=100))
    np.testing.assert_allclose(read_image(path)[0], RAMP, atol=4 / 255)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("SC_rgb_rle_16bit.dcm", 1 / 255),
        ("SC_rgb_rle_32bit.dcm", 1 / 255),
        ("SC_rgb_gdcm_KY.dcm", 0.1),
        ("SC_rgb_jls_lossy_line.dcm", 0.1),
        ("SC_rgb_jls_lossy_sample.dcm", 0.1),
        ("SC_rgb_dcmtk_+eb+cr.dcm", 0.1),
        ("SC_rgb_dcmtk_+eb+cy+n1.dcm", 0.1),
        ("SC_rgb_dcmtk_+eb+cy+n2.dcm", 0.1),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", 0.1),
        ("SC_rgb_dcmtk_+eb+cy+s4.dcm", 0.1),
        ("SC_rgb_jpeg_lossy_gdcm.dcm", 0.1),
        ("SC_ybr_full_422_uncompressed.dcm", 0.1),
    ],
)
def test_one_colour_chart_by_other_programs(name, tolerance):
    chart, other = (channels(get_testdata_file(file, download=False)) for file in ("SC_rgb_rle.dcm", name))
    rows = slice(5, 100, 10)  # the middle of each bar, where lossy codecs agree
    np.testing.assert_allclose(other[rows, 50], chart[rows, 50], atol=tolerance)


def palette_tags(entries, bits, data, first=0):
    tags = {}
    for number, colour in enumerate(("Red", "Green", "Blue")):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [entries, first, bits]
        tags[f"{colour}PaletteColorLookupTableData"] = data(number)
    return {**tags, "PhotometricInterpretation": "PALETTE COLOR"}


@pytest.mark.parametrize(
    ("bits", "scale", "dtype"),
    [(8, 1, "u1"), (8, 1, "u2"), (16, 257, "u2"), (16, 1, "u2")],
    ids=["8 bits", "8 bits in words", "16 bits", "16 bits, of which 8 are used"],
)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_palettes(tmp_path, bits, scale, dtype, syntax):
    colours = np.stack([np.arange(100), 99 - np.arange(100), np.full(100, 255)])
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    tags = palette_tags(100, bits, lambda c: (colours[c] * scale).astype(np.dtype(dtype).newbyteorder(order)).tobytes())
    indices = (RAMP * 119).astype(np.uint8)  # those beyond the table have its last colour
    image = channels(write_dicom(tmp_path / "palette.dcm", indices, syntax=syntax, **tags))
    np.testing.assert_allclose(image, colours.T[indices.clip(0, 99)] / 255, atol=1e-6)


def test_a_palette_of_16_bit_indices_with_a_first_value(tmp_path):
    tags = palette_tags(300, 8, lambda c: np.linspace(0, 255, 300).round().astype("u1").tobytes(), first=1000)
    indices = (900 + RAMP * 500).astype(np.uint16)
    expected = np.linspace(0, 255, 300).round()[(indices.astype(int) - 1000).clip(0, 299)] / 255
    np.testing.assert_allclose(channels(write_dicom(tmp_path / "p.dcm", indices, **tags))[..., 0], expected, atol=1e-6)


def test_rescale_and_windows(tmp_path):
    stored = (RAMP * 2000 - 1000).astype(np.int16)

    def read(**tags):
        return read_image(write_dicom(tmp_path / "window.dcm", stored, **tags))[0].numpy()

    rescaled = stored * 2.0 + 24
    window = {"WindowCenter": 0, "WindowWidth": 1000, "RescaleSlope": 2, "RescaleIntercept": 24}
    np.testing.assert_allclose(read(**window), ((rescaled + 0.5) / 999 + 0.5).clip(0, 1), atol=1e-6)
    exact = read(**window, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(exact, (rescaled / 1000 + 0.5).clip(0, 1), atol=1e-6)
    np.testing.assert_allclose(
        read(**window, VOILUTFunction="SIGMOID"), 1 / (1 + np.exp(-4 * rescaled / 1000)), atol=1e-6
    )
    assert set(np.unique(read(**{**window, "WindowWidth": 1}))) == {0, 1}
    np.testing.assert_allclose(read(**{**window, "WindowCenter": [0, 500], "WindowWidth": [1000, 2]}), read(**window))
    np.testing.assert_allclose(read(**window, PhotometricInterpretation="MONOCHROME1"), 1 - read(**window), atol=1e-6)


def lookup(data, first, bits):
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [len(data), first, bits], "US"
    item.add_new("LUTData", "US", list(data))
    return [item]


def test_lookup_tables(tmp_path):
    stored = (RAMP * 400).astype(np.uint16)
    squares = (np.arange(300) / 299) ** 2
    expected = squares[(stored.astype(int) - 50).clip(0, 299)]
    for bits in (8, 12, 16):
        table = lookup((squares * ((1 << bits) - 1)).round().astype(int).tolist(), 50, bits)
        for name in ("VOILUTSequence", "ModalityLUTSequence"):
            image = read_image(write_dicom(tmp_path / "lut.dcm", stored, **{name: table}))[0]
            np.testing.assert_allclose(image, expected, atol=1 / (1 << bits), err_msg=f"{name} {bits}")


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": 500, "WindowWidth": 0},
        {"WindowCenter": 500, "WindowWidth": None},
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"RescaleSlope": 1},
        {"VOILUTSequence": []},
        {"ModalityLUTSequence": []},
        {"VOILUTFunction": None, "PixelPaddingValue": None, "NumberOfFrames": None, "PlanarConfiguration": None},
        {"PhotometricInterpretation": None, "PixelRepresentation": None, "SamplesPerPixel": None},
        {"BitsStored": None, "HighBit": None},
        {"BitsStored": 0, "HighBit": 0},
    ],
    ids=str,
)
def test_attributes_that_are_empty_or_zero_are_as_if_absent(tmp_path, tags):
    dataset, stored = make_dicom((RAMP * 1000).astype(np.uint16))
    for name, value in tags.items():
        setattr(dataset, name, value)
    np.testing.assert_allclose(read_image(save(tmp_path / "e.dcm", dataset, stored))[0], RAMP, atol=1e-3)


@pytest.mark.parametrize("syntax", NATIVE[:3], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("name", ["headless.dcm", "IM0001"])
def test_files_without_a_header(tmp_path, syntax, name):
    stored = (RAMP * 1000).astype(np.uint16)
    content = write_dicom(tmp_path / "whole.dcm", stored, syntax=syntax).read_bytes()
    start = content.index(b"\0\x08\0\x16" if syntax == ExplicitVRBigEndian else b"\x08\0\x16\0")
    path = tmp_path / name
    path.write_bytes(content[start:])
    if syntax == ExplicitVRBigEndian and name == "IM0001":
        pytest.skip("big endian is told from its suffix or its header alone")
    np.testing.assert_allclose(read_image(path)[0], RAMP, atol=1e-3)
    assert image_size(path) == (16, 20)


def test_compressed_pixels_without_a_header_are_refused(tmp_path):
    content = write_dicom(tmp_path / "w.dcm", (RAMP * 255).astype(np.uint8), syntax=RLELossless).read_bytes()
    (tmp_path / "headless.dcm").write_bytes(content[content.index(b"\x08\0\x16\0") :])
    with pytest.raises(ImageError, match="compressed pixels and no transfer syntax"):
        read_image(tmp_path / "headless.dcm")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("high", [11, 13, 15])
@pytest.mark.parametrize("kind", ["u", "i"])
def test_stored_bits_stand_anywhere_in_their_cell(tmp_path, syntax, high, kind):
    values = (RAMP * 4095 - (2048 if kind == "i" else 0)).astype(f"{kind}2")
    cells = ((values.astype(np.int32) << (high - 11)) & 0xFFFF).astype(np.uint16)
    above = np.uint16(0xFFFF << (high + 1) & 0xFFFF)
    for noise in (0, 1):  # the bits above and below may hold anything
        filled = (cells & ~above) | (noise * above) | np.uint16(noise * ((1 << (high - 11)) - 1))
        tags = {"BitsStored": 12, "HighBit": high, "syntax": syntax}
        path = write_dicom(tmp_path / "cells.dcm", filled.view(f"{kind}2"), **tags)
        np.testing.assert_allclose(read_image(path)[0], RAMP, atol=1e-3)


@pytest.mark.parametrize("padding", [-2000, 63536], ids=["signed", "as if unsigned"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_not_counted(tmp_path, padding, photometric):
    stored = (RAMP * 1000).astype(np.int16)
    stored[:4] = -2000
    dataset, _ = make_dicom(stored, PhotometricInterpretation=photometric, syntax=ExplicitVRLittleEndian)
    dataset.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
    image = read_image(save(tmp_path / "padded.dcm", dataset, stored))[0]
    tissue = (stored[4:] - stored[4:].min()) / np.ptp(stored[4:])
    assert (image[:4] == 0).all()
    np.testing.assert_allclose(image[4:], 1 - tissue if photometric == "MONOCHROME1" else tissue, atol=1e-6)


def test_a_range_of_padding(tmp_path):
    stored = (1000 + RAMP * 1000).astype(np.uint16)
    stored[:2], stored[2:4] = 5, 9
    path = write_dicom(tmp_path / "range.dcm", stored, PixelPaddingValue=0, PixelPaddingRangeLimit=10)
    image = read_image(path)[0]
    assert (image[:4] == 0).all() and float(image[4].min()) < 0.01


def test_the_window_and_rescale_of_each_frame(tmp_path):
    frames = np.stack([RAMP * 1000, RAMP * 1000]).astype(np.uint16)
    groups = []
    for slope in (1, 2):
        window, transformation, group = Dataset(), Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth, window.VOILUTFunction = 500, 1000, "LINEAR_EXACT"
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, 0
        group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [window], [transformation]
        groups.append(group)
    path = write_dicom(tmp_path / "frames.dcm", frames, PerFrameFunctionalGroupsSequence=groups)
    for frame, slope in enumerate((1, 2)):
        expected = (RAMP * slope).clip(0, 1)
        np.testing.assert_allclose(read_image(path, frame=frame)[0], expected, atol=3e-3)
    shared, window = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = 250, 500, "LINEAR_EXACT"
    shared.FrameVOILUTSequence = [window]
    path = write_dicom(tmp_path / "shared.dcm", frames, SharedFunctionalGroupsSequence=[shared])
    np.testing.assert_allclose(read_image(path, frame=1)[0], (RAMP * 2).clip(0, 1), atol=3e-3)


def test_a_frame_of_several_is_chosen_explicitly(tmp_path):
    frames = np.stack([(RAMP * 100).astype(np.uint16), (RAMP[::-1] * 100).astype(np.uint16)])
    path = write_dicom(tmp_path / "frames.dcm", frames)
    with pytest.raises(ImageError, match="has 2 frames; choose one with frame=0 to frame=1"):
        read_image(path)
    np.testing.assert_allclose(read_image(path, frame=1)[0], RAMP[::-1], atol=0.02)
    with pytest.raises(ImageError, match="no frame 2; there are 0 to 1"):
        read_image(path, frame=2)


def test_what_is_not_read_says_why(tmp_path):
    dataset, _ = make_dicom(COLOUR, samples=3, PhotometricInterpretation="YBR_PARTIAL_420")
    with pytest.raises(ImageError, match="has colours as YBR_PARTIAL_420"):
        read_image(save(tmp_path / "partial.dcm", dataset, COLOUR))
    dataset, _ = make_dicom(COLOUR[..., 0], syntax=JPEGLosslessSV1)
    path = save_encoded(tmp_path / "lossless.dcm", dataset, b"\xff\xd8\xff\xc3" + bytes(100))
    with pytest.raises(ImageError, match=r"JPEG Lossless.*pip install 'medvl-zoo\[dicom\]'|cannot be read"):
        read_image(path)
    dataset, _ = make_dicom(COLOUR[..., 0])
    dataset.save_as(tmp_path / "none.dcm", enforce_file_format=True)
    with pytest.raises(ImageError, match="cannot be read as an image"):
        read_image(tmp_path / "none.dcm")


def test_a_truncated_file_is_refused(tmp_path):
    content = write_dicom(tmp_path / "whole.dcm", (RAMP * 100).astype(np.uint16)).read_bytes()
    for length in (140, len(content) // 2, len(content) - 100):
        (tmp_path / "cut.dcm").write_bytes(content[:length])
        with pytest.raises(ImageError, match=r"cut\.dcm"):
            read_image(tmp_path / "cut.dcm")


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm"])
def test_files_of_scanners(name):
    image = read_image(get_testdata_file(name, download=False))
    assert image.ndim == 3 and 0 <= float(image.min()) < float(image.max()) <= 1
    if name.startswith("MR_small_"):
        np.testing.assert_array_equal(image, read_image(get_testdata_file("MR_small.dcm", download=False)))


def test_twelve_bits_of_jpeg_extended_name_their_decoder():
    path = get_testdata_file("JPGExtended.dcm", download=False)
    with pytest.raises(ImageError, match=r"'JPEG Extended .*' with 12 bits.* pip install pylibjpeg pylibjpeg-libjpeg"):
        read_image(path)
