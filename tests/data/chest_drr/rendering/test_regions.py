import numpy as np

from zoo.data.chest_drr.rendering.regions import REGIONS, bounding_box


def test_regions_are_on_their_side_of_the_image(one_of_each):
    assert len(REGIONS) == 34
    for case in one_of_each:
        assert set(case.regions) == set(REGIONS)
        for part in ("lung", "hilar structures", "costophrenic angle", "clavicle"):
            right, left = (np.nonzero(case.regions[f"{side} {part}"])[1].mean() for side in ("right", "left"))
            assert right < left
        assert not (case.regions["right mid lung zone"] & ~case.regions["right lung"]).any()


def test_a_bounding_box_is_exclusive_at_right_and_bottom():
    mask = np.zeros((8, 9), dtype=bool)
    assert bounding_box(mask) is None
    mask[2:5, 3:9] = True
    assert bounding_box(mask) == (3, 2, 9, 5)
