"""Headers of all images, and the sizes of films whose steps have boxes."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.small_recipes import write_recipe
from tests.tiny_models import ivl_traces
from zoo.config.building import resolve_recipe
from zoo.config.recipe import read_recipe
from zoo.engine.data_formats import scan_data
from zoo.engine.headers import read_sizes, sizes_of_boxes
from zoo.engine.inspection import inspect_recipe


def inspected(path, *settings):
    return inspect_recipe(resolve_recipe(read_recipe(path, list(settings))))


def test_films_of_several_sizes_do_not_go_with_boxes_in_pixels(tmp_path):
    """A line that names the key; any number is right for all sizes."""
    file = ivl_traces(tmp_path / "ivl") / "data.jsonl"
    large = ivl_traces(tmp_path / "ivl" / "large", side=128) / "data.jsonl"
    recipe = write_recipe(tmp_path, "interleaved_reasoning small crop")

    def sizes(*settings):
        return [note for note in inspected(recipe, *settings).notes if "sizes" in note]

    assert sizes("method.box_frame=pixels") == [], "films of one size"
    own = re.sub(r'"(film_\d+(?:_\d)?\.png)"', r'"large/\1"', large.read_text())
    file.write_text(f"{file.read_text()}\n{own}")
    (note,) = sizes("method.box_frame=pixels")
    assert note.startswith("the films with boxes have 2 sizes (64 x 64, 128 x 128)") and "method.box_frame" in note
    assert sizes("method.box_frame=64") == [] == sizes("method.box_frame=pixels", "method.evidence=none")
    scanned = scan_data(str(file))
    assert sizes_of_boxes(scanned.images, read_sizes(scanned.images)[0]).startswith("the films with boxes have 2 sizes")


def table_recipe(folder, count=30):
    """A recipe for a table of that many images."""
    listed = [(f"{index}.png", "ab"[index % 2], ("train", "val", "test")[index // 2 % 3]) for index in range(count)]
    for name, label, _ in listed:
        Image.fromarray(np.full((16, 16), int(name.split(".")[0]) * 5 + (label == "b"), np.uint8)).save(folder / name)
    (folder / "table.csv").write_text("path,label,split\n" + "".join(f"{','.join(row)}\n" for row in listed))
    (folder / "r.yaml").write_text(
        f"base: nearl_clip/chest_drr_16shot\ndata: {{name: image_csv, table: {folder / 'table.csv'}}}\n"
    )
    return folder / "r.yaml"


@pytest.mark.parametrize("content", [b"a text\n", b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"II*\x00\x08\x00\x00\x00"])
@pytest.mark.parametrize("suffix", [".png", ".dcm", ".nii.gz"])
def test_the_headers_of_all_images_are_opened(tmp_path, content, suffix):
    """A file that is none is named wherever it stands, in plain words; ``quick`` opens the first ones alone."""
    recipe = table_recipe(tmp_path)
    assert inspected(recipe).problems == []
    (tmp_path / "27.png").unlink()
    (tmp_path / f"27{suffix}").write_bytes(content)
    (tmp_path / "table.csv").write_text((tmp_path / "table.csv").read_text().replace("27.png", f"27{suffix}"))
    (problem,) = inspected(recipe).problems
    assert problem.startswith(f"{tmp_path / f'27{suffix}'}: ") or suffix != ".png"
    assert "UnidentifiedImageError" not in problem and "object at" not in problem and "_io." not in problem
    assert inspect_recipe(resolve_recipe(read_recipe(recipe)), quick=True).problems == [] or suffix != ".png"


def test_what_is_wrong_with_a_whole_table_is_said_once(tmp_path):
    recipe = table_recipe(tmp_path, 6)
    for change in (("path,label,split", "path,diagnosis,split"), ("b,train", "b,training set"), ("1.png", "gone.png")):
        text = (tmp_path / "table.csv").read_text()
        (tmp_path / "table.csv").write_text(text.replace(*change))
        assert len(inspected(recipe).problems) == 1, inspected(recipe).problems
        (tmp_path / "table.csv").write_text(text)
