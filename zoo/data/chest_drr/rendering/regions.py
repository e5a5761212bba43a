"""Anatomical regions of a rendered radiograph, named after Chest ImaGenome, with exact masks.

A region is either a set of labelled voxels (organs, and landmarks painted around anatomical points) projected along the rays,
or cut from such a projection (lung zones, hemidiaphragms). Zone borders and landmark radii are ours (reconstructed).
"""

from functools import lru_cache

import numpy as np
from scipy import ndimage

from zoo.data.chest_drr.rendering.volume import LOBES, ChestVolume

_ORGANS = {
    "right lung": (12, 13, 14),
    "left lung": (10, 11),
    "cardiac silhouette": (51,),
    "aorta": (52,),
    "superior vena cava": (62,),
    "trachea": (16,),
    "right clavicle": (74,),
    "left clavicle": (73,),
    "spine": tuple(range(25, 51)),
    "right upper abdomen": (5,),
    "left upper abdomen": (1, 6),
}
_LANDMARKS = (
    "carina",
    "right hilar structures",
    "left hilar structures",
    "aortic arch",
    "cavoatrial junction",
    "right costophrenic angle",
    "left costophrenic angle",
    "right cardiophrenic angle",
    "left cardiophrenic angle",
)
_ORGAN_NAMES = list(_ORGANS)
_MEDIASTINUM = len(_ORGAN_NAMES) + 1
_LANDMARK_STEP, _FINDING_STEP = 16, 256

ZONES = ("apical zone", "upper lung zone", "mid lung zone", "lower lung zone")
REGIONS = (
    *(f"{side} {part}" for side in ("right", "left") for part in ("lung", *ZONES, "hemidiaphragm")),
    *(name for name in _ORGAN_NAMES if name not in ("right lung", "left lung", "aorta")),
    *_LANDMARKS,
    "mediastinum",
    "upper mediastinum",
    "right cardiac silhouette",
    "left cardiac silhouette",
    "descending aorta",
)
"""Names of all regions (34)."""


@lru_cache(maxsize=8)
def region_map(volume: ChestVolume) -> np.ndarray:
    """Region code of each voxel, (z, y, x) int16: organ + 16 x landmark; room above 256 for findings."""
    organs = np.zeros(volume.labels.shape, dtype=np.int16)
    organs[_between_lungs(volume)] = _MEDIASTINUM
    for code, ids in enumerate(_ORGANS.values(), start=1):
        organs[np.isin(volume.labels, ids)] = code
    landmarks = np.zeros_like(organs)
    for code, marked in enumerate(_landmark_voxels(volume), start=1):
        landmarks[marked] = code
    return organs + _LANDMARK_STEP * landmarks


def overlay_findings(volume: ChestVolume, painted: np.ndarray) -> np.ndarray:
    """The region map with the finding map of :func:`~zoo.data.chest_drr.rendering.findings.paint_findings` on top."""
    return region_map(volume) + _FINDING_STEP * painted.astype(np.int16)


def _between_lungs(volume: ChestVolume) -> np.ndarray:
    lungs = np.isin(volume.labels, list(LOBES.values()))
    right, left = np.isin(volume.labels, _ORGANS["right lung"]), np.isin(volume.labels, _ORGANS["left lung"])
    after_right = np.logical_or.accumulate(right, axis=2)
    before_left = np.logical_or.accumulate(left[:, :, ::-1], axis=2)[:, :, ::-1]
    heart_floor = np.argwhere(volume.labels == 51)[:, 0].min()
    between = after_right & before_left & ~lungs
    between[:heart_floor] = False
    return between


def _landmark_voxels(volume: ChestVolume) -> list[np.ndarray]:
    """One boolean volume for each name in ``_LANDMARKS``."""
    z, y, x = np.ogrid[tuple(slice(length) for length in volume.labels.shape)]
    px, py, pz = volume.millimetres(z, y, x)

    def ellipsoid(point: np.ndarray, wide: float, tall: float) -> np.ndarray:
        return ((px - point[0]) / wide) ** 2 + ((py - point[1]) / wide) ** 2 + ((pz - point[2]) / tall) ** 2 < 1

    carina = _carina(volume)
    aorta_top = volume.millimetres(*np.nonzero(volume.labels == 52))[2].max()
    vena_cava = volume.millimetres(*np.nonzero(volume.labels == 62))
    junction = np.array([axis[vena_cava[2] < vena_cava[2].min() + 8].mean() for axis in vena_cava])
    heart = volume.millimetres(*np.nonzero(volume.labels == 51))
    heart_base = np.quantile(heart[2], 0.1)
    return [
        ellipsoid(carina, 13, 13),
        ellipsoid(carina + np.array([-38, 0, -26]), 20, 27),
        ellipsoid(carina + np.array([42, 0, -20]), 20, 27),
        np.isin(volume.labels, [52]) & (pz > aorta_top - 34),
        ellipsoid(junction, 13, 13),
        ellipsoid(_lateral_recess(volume, left=False), 17, 17),
        ellipsoid(_lateral_recess(volume, left=True), 17, 17),
        ellipsoid(np.array([heart[0].min() - 4, heart[1].mean(), heart_base]), 15, 15),
        ellipsoid(np.array([heart[0].max() - 4, heart[1].mean(), heart_base]), 15, 15),
    ]


def _carina(volume: ChestVolume) -> np.ndarray:
    """Where the two main bronchi, followed upwards, become one trachea."""
    airway = volume.labels == _ORGANS["trachea"][0]
    levels = np.flatnonzero(airway.any(axis=(1, 2)))
    widths = np.array([np.ptp(np.flatnonzero(airway[level].any(axis=0))) for level in levels])
    split = levels[widths > 2 * np.median(widths[-12:])]
    y, x = (axis.mean() for axis in np.nonzero(airway[split[-1]]))
    return np.array([float(axis) for axis in volume.millimetres(np.array(split[-1]), np.array(y), np.array(x))])


def _lateral_recess(volume: ChestVolume, *, left: bool) -> np.ndarray:
    """The lowest lung among the most lateral, which is where the costophrenic angle projects."""
    lungs = volume.lungs
    outward = lungs.x if left else -lungs.x
    side = lungs.is_left == left
    lateral = np.flatnonzero(side & (outward > np.quantile(outward[side], 0.97)))
    lowest = lateral[np.argmin(lungs.z[lateral])]
    return np.array([lungs.x[lowest], lungs.y[lowest], lungs.z[lowest]])


def _project_codes(samples: np.ndarray, selections: dict[str, tuple[np.ndarray, int]]) -> dict[str, np.ndarray]:
    """Pixels (size, size) whose rays have enough samples of the selected codes.

    Args:
        samples: (size, size, depth) of a map of codes.
        selections: by name, a table (codes) of booleans, and the least number of samples, from 1 to 4.
    """
    sets = np.zeros(len(next(iter(selections.values()))[0]), dtype=np.uint32)  # of each code, a bit for each selection
    for bit, (selected, _) in enumerate(selections.values()):
        sets |= selected.astype(np.uint32) << np.uint32(bit)
    seen = [np.zeros(samples.shape[:2], dtype=np.uint32) for _ in range(4)]  # once, twice, three times, four times
    for codes in np.ascontiguousarray(samples.transpose(2, 0, 1)):
        present = sets[codes]
        for times in (3, 2, 1):
            seen[times] |= seen[times - 1] & present
        seen[0] |= present
    return {
        name: (seen[at_least - 1] >> np.uint32(bit) & np.uint32(1)).astype(bool)
        for bit, (name, (_, at_least)) in enumerate(selections.items())
    }


def region_masks(samples: np.ndarray) -> dict[str, np.ndarray]:
    """Masks (size, size) of all regions from the samples (size, size, depth) of a region map."""
    codes = np.arange(_FINDING_STEP * 8)
    organ, landmark = codes % _LANDMARK_STEP, codes % _FINDING_STEP // _LANDMARK_STEP
    central = [
        _ORGAN_NAMES.index(name) + 1 for name in ("cardiac silhouette", "aorta", "superior vena cava", "trachea")
    ]
    selections = {name: (organ == code, 2) for code, name in enumerate(_ORGAN_NAMES, start=1)}
    selections |= {name: (landmark == code, 1) for code, name in enumerate(_LANDMARKS, start=1)}
    selections["mediastinum"] = (np.isin(organ, [*central, _MEDIASTINUM]), 4)
    masks = _project_codes(samples, selections)
    masks["cardiac silhouette"] = _closed(masks["cardiac silhouette"])
    for code, side in ((1, "right"), (2, "left")):
        depth = np.count_nonzero((organ == code)[samples], axis=-1)
        masks |= _lung_parts(masks[f"{side} lung"], depth, side)
    rows, columns = np.ogrid[: samples.shape[0], : samples.shape[1]]
    carina_row = _centre(masks["carina"])[0]
    midline = _centre(masks["spine"])[1]
    masks["upper mediastinum"] = masks["mediastinum"] & (rows < carina_row)
    masks["right cardiac silhouette"] = masks["cardiac silhouette"] & (columns < midline)
    masks["left cardiac silhouette"] = masks["cardiac silhouette"] & (columns >= midline)
    masks["descending aorta"] = masks["aorta"] & (rows > carina_row)
    return {name: masks[name] for name in REGIONS}


def finding_mask(samples: np.ndarray, position: int) -> np.ndarray:
    """Mask (size, size) of the finding painted as ``position`` + 1."""
    return (samples // _FINDING_STEP == position + 1).any(axis=-1)


def _centre(mask: np.ndarray) -> tuple[float, float]:
    if not mask.any():
        return mask.shape[0] / 2, mask.shape[1] / 2
    row, column = (float(axis.mean()) for axis in np.nonzero(mask))
    return row, column


def _closed(mask: np.ndarray) -> np.ndarray:
    """A silhouette without the notches that vessels beside the labelled organ leave in it."""
    reach = max(mask.shape[0] // 40, 1)
    padded = np.pad(mask, reach)
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(padded, iterations=reach))
    return closed[reach:-reach, reach:-reach]


def _lung_parts(lung: np.ndarray, depth: np.ndarray, side: str) -> dict[str, np.ndarray]:
    """Zones by height (the apical zone is the top of the upper one), and a band about the dome of the hemidiaphragm.

    The posterior recess projects far below the dome, which is where a ray has lost half of the lung above it; ``depth``
    (size, size) counts the lung samples of each ray.
    """
    columns = np.flatnonzero(lung.any(axis=0))
    if len(columns) == 0:
        return {f"{side} {part}": np.zeros_like(lung) for part in (*ZONES, "hemidiaphragm")}
    deep = depth >= 0.5 * np.quantile(depth[:, columns], 0.95, axis=0).max()
    columns = np.flatnonzero(deep.any(axis=0))
    dome = ndimage.median_filter(lung.shape[0] - 1 - np.argmax(deep[::-1, columns], axis=0), size=7, mode="nearest")
    top, bottom = np.flatnonzero(lung.any(axis=1))[0], np.quantile(dome, 0.8)
    rows = np.arange(lung.shape[0])[:, None]
    share = (rows - top) / max(bottom - top, 1)
    borders = {"apical zone": (-1, 0.16), "upper lung zone": (-1, 0.36), "mid lung zone": (0.36, 0.68)}
    parts = {f"{side} {zone}": lung & (share >= low) & (share < high) for zone, (low, high) in borders.items()}
    parts[f"{side} lower lung zone"] = lung & (share >= 0.68)
    band = np.zeros_like(lung)
    band[:, columns] = np.abs(rows - dome[None]) <= max(lung.shape[0] // 40, 1)
    parts[f"{side} hemidiaphragm"] = band & (share > 0.55)
    return parts


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The box (left, top, right, bottom) of a mask in pixels, right and bottom exclusive; None where it is empty."""
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
