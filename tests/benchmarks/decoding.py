"""Reading a film again from the cache of decoded images, beside decoding it each time."""

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.uid import JPEG2000Lossless

from tests.data.io.dicom_files import make_dicom, save_encoded, write_dicom
from zoo.data.io.decoded import DecodedImages
from zoo.data.io.images import read_image

SIDE, ROUNDS = 2048, 5


def film(bits: int) -> np.ndarray:
    """Smooth structures with the noise of a detector."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.random((24, 24)).astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    values = np.asarray(coarse) * 0.8 + rng.normal(0, 0.01, (SIDE, SIDE)) + 0.1
    return (np.clip(values, 0, 1) * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def write_films(folder: Path) -> dict[str, Path]:
    """A film in the formats that radiographs come in."""
    deep, shallow = film(12), film(8)
    options = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 3600}
    write_dicom(folder / "native.dcm", deep, **options)
    encoded = io.BytesIO()
    Image.fromarray(deep).save(encoded, "JPEG2000", irreversible=False)
    dataset, _ = make_dicom(deep, JPEG2000Lossless, **options)
    save_encoded(folder / "j2k.dcm", dataset, encoded.getvalue())
    Image.fromarray(deep).save(folder / "16bit.png")
    Image.fromarray(shallow).save(folder / "8bit.jpg", quality=90)
    names = {
        "DICOM, native": "native.dcm",
        "DICOM, JPEG 2000": "j2k.dcm",
        "PNG, 16 bits": "16bit.png",
        "JPEG": "8bit.jpg",
    }
    return {name: folder / file for name, file in names.items()}


def decoding() -> None:
    """Median time to read a film of 2048 x 2048 pixels, decoded and from the cache with its checksum."""

    def seconds(read: Callable[[Path], object], file: Path) -> float:
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            read(file)
            times.append(time.perf_counter() - start)
        return sorted(times)[ROUNDS // 2]

    with tempfile.TemporaryDirectory() as folder:
        cached = DecodedImages(folder=Path(folder) / "cache")
        print(f"a film of {SIDE} x {SIDE} pixels, median of {ROUNDS}")
        print(f"{'':20}{'decoded, ms':>14}{'cached, ms':>12}{'ratio':>8}{'file, MB':>10}{'cache, MB':>11}")
        for name, file in write_films(Path(folder)).items():
            before = sum(path.stat().st_size for path in (Path(folder) / "cache").rglob("*.safetensors"))
            cached(file)
            size = sum(path.stat().st_size for path in (Path(folder) / "cache").rglob("*.safetensors")) - before
            slow, fast = seconds(read_image, file), seconds(cached, file)
            sizes = f"{file.stat().st_size / 1e6:>10.1f}{size / 1e6:>11.1f}"
            print(f"{name:20}{slow * 1e3:>14.0f}{fast * 1e3:>12.0f}{fast / slow:>8.2f}{sizes}")


if __name__ == "__main__":
    decoding()
