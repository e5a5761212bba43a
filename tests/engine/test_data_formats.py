"""Every format is recognised, and every bad line of it reported with its number."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.data.annotations.public_forms import FORMS, marked, picture
from tests.data.classification.tables import rows, write_table
from tests.tiny_models import coop_split, ivl_traces, medseg_files
from zoo.engine.data_formats import scan_data
from zoo.engine.inspection import open_images
from zoo.errors import ArgumentError


def test_conversations_and_traces_are_told_apart(tmp_path):
    for make, form, count in ((medseg_files, "conversations, 4 questions", 4), (ivl_traces, "traces, 6 steps", 3)):
        make(tmp_path / form[:5])
        scanned = scan_data(str(tmp_path / form[:5] / "data.jsonl"))
        assert scanned.form == form and len(scanned.images) == count and scanned.problems.messages == []
        assert any(region.is_marked for image in scanned.images for region in image.regions)


def test_every_bad_line_of_conversations_is_reported(tmp_path):
    medseg_files(tmp_path)
    file = tmp_path / "data.jsonl"
    good = file.read_text().splitlines()
    broken = json.loads(good[0])
    broken["masks"][0]["counts"] = "0"
    file.write_text("\n".join([good[0], "{", json.dumps({**broken}), good[2].replace("2.png", "gone.png"), good[1]]))
    scanned = scan_data(str(file))
    assert len(scanned.images) == 2
    assert [message.split(":")[1] for message in scanned.problems.messages] == ["2", "3", "4"]


def test_every_bad_row_of_a_table_is_reported(tmp_path):
    write_table(tmp_path, rows(2))
    table = tmp_path / "table.csv"
    lines = table.read_text().splitlines()
    lines[1], lines[3], lines[5] = "0.png", lines[3].replace(",b,", ",,"), lines[5].replace("val", "fold")
    lines.append("gone.png,a,p,test")
    table.write_text("\n".join(lines))
    scanned = scan_data(str(table))
    text = "\n".join(scanned.problems.messages)
    assert (
        "line 2: has 1 field" in text and "line 4: " in text and "line 6: split 'fold'" in text and "gone.png" in text
    )
    assert len(scanned.images) == 9 and scanned.images[0].labels == {"a": 1.0}


def test_a_table_is_refused_as_a_recipe_refuses_it(tmp_path):
    """Labels that differ in case alone, and a table without rows."""
    write_table(tmp_path, rows(2))
    table = tmp_path / "table.csv"
    header, first, *others = table.read_text().splitlines()
    for lines, message in (
        ([header], f"{table}: has no rows"),
        ([header, first, others[0].upper().replace(".PNG", ".png")], "differ in case or spaces alone"),
    ):
        table.write_text("\n".join(lines))
        (problem,) = scan_data(str(table)).problems.messages[:1]
        assert message in problem


def test_an_image_that_is_listed_twice_is_a_problem(tmp_path):
    write_table(tmp_path, rows(1))
    with (tmp_path / "table.csv").open("a") as file:
        file.write("\n0.png,a,p9,test\n1.png,a,x,train")
    messages = scan_data(str(tmp_path / "table.csv")).problems.messages
    assert (
        "0.png: is listed twice, in two splits" in messages[0]
        and "1.png: is listed twice, in two labels" in messages[1]
    )


def test_columns_of_a_table_are_settings(tmp_path):
    write_table(tmp_path, rows(1), header="file;label,patient,split".replace(";", ","))
    assert len(scan_data(str(tmp_path / "table.csv"), ["path_column=file"]).images) == 6
    assert "needs the columns path and label" in scan_data(str(tmp_path / "table.csv")).problems.messages[0]


def test_json_files_by_their_keys(tmp_path):
    coop_split(tmp_path / "coop")
    content = json.loads((tmp_path / "coop" / "split.json").read_text())
    content["val"][1] = ["../x.png", 0, "stripes"]
    content["val"][2] = ["dots/val_0.png", "1", "dots"]
    (tmp_path / "coop" / "split.json").write_text(json.dumps(content))
    scanned = scan_data(str(tmp_path / "coop" / "split.json"), [f"images={tmp_path}/coop/images"])
    assert [message.split(": ")[1] for message in scanned.problems.messages] == ["val[1]", "val[2]"]
    node = FORMS["coco_instances"](tmp_path / "coco")
    file = node["annotations"].replace("{split}", "val")
    assert len(scan_data(file, [f"images={tmp_path}/coco/val"]).images) == 3
    FORMS["iu_xray"](tmp_path / "iu")
    assert scan_data(str(tmp_path / "iu" / "annotation.json"), [f"images={tmp_path}/iu/images"]).form == "form iu_xray"
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ArgumentError, match="is neither a CoOp split nor COCO instances"):
        scan_data(str(tmp_path / "other.json"))


def test_folders_of_masks_of_classes_and_of_reasonseg(tmp_path, striped_folder):
    FORMS["mask_images"](tmp_path / "masks")
    assert scan_data(str(tmp_path / "masks" / "test")).form == "form mask_images"
    picture(tmp_path / "busi" / "a.png")
    Image.fromarray(marked().astype(np.uint8)).save(tmp_path / "busi" / "a_mask.png")
    assert [region.name for region in scan_data(str(tmp_path / "busi"), ["target=tumour"]).images[0].regions] == [
        "tumour"
    ]
    assert scan_data(str(striped_folder)).images[0].labels == {"blank film": 1.0}
    shapes = [{"label": "target", "points": [[4, 4], [20, 4], [20, 16], [4, 16]]}]
    for name in ("b", "c"):
        picture(tmp_path / "reason" / f"{name}.jpg")
        content = {"text": ["Which?"], "shapes": shapes if name == "b" else 3}
        (tmp_path / "reason" / f"{name}.json").write_text(json.dumps(content))
    scanned = scan_data(str(tmp_path / "reason"))
    assert len(scanned.images) == 1 and "c.json" in scanned.problems.messages[0]
    assert scanned.images[0].regions[0].name == "mask", "its answer, It is [SEG], names nothing"


@pytest.mark.parametrize("form", list(FORMS))
def test_forms_by_their_name(form, tmp_path):
    node = FORMS[form](tmp_path)
    settings = [f"{key}={json.dumps(value)}" for key, value in node.items() if key != "name"]
    scanned = scan_data(form, settings)
    assert len(scanned.images) >= 4 and scanned.problems.messages == []


def test_what_is_not_known_is_said(tmp_path):
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(ArgumentError, match="its format is not known"):
        scan_data(str(tmp_path / "a.xyz"))
    with pytest.raises(ArgumentError, match="there is no such file, data set or form"):
        scan_data(str(tmp_path / "gone.jsonl"))


def folder_of(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), 7 * number, np.uint8)).save(root / name)
    return root


@pytest.mark.parametrize(
    ("names", "problem", "note"),
    [
        (["a.png", "b.png"], "", "has no folders, one for each class"),
        (["x/a.png", "y/b.png"], "2 patients cannot be split", ""),
        (["train/x/a.png", "more/y/b.png"], "has folders of splits and 'more', which is none", ""),
    ],
)
def test_the_images_of_a_folder_are_opened_however_it_is_laid_out(tmp_path, names, problem, note):
    """Few images, or none with a class: whatever a data set would lack is said, once, and each image is looked at."""
    scanned = scan_data(str(folder_of(tmp_path / "films", *names)))
    assert len(open_images(scanned)) == len(names)
    assert [problem in text for text in scanned.problems.messages] == [True] * bool(problem)
    assert [note in text for text in scanned.problems.notes] == [True] * bool(note)
    (tmp_path / "films" / names[1]).write_text("a text")
    again = scan_data(str(tmp_path / "films"))
    open_images(again)
    assert any(names[1] in text and "no known format" in text for text in again.problems.messages)
