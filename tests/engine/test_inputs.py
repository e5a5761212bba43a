"""Inputs by file, folder and pattern, and names of their outputs."""

from pathlib import Path

import pytest

from tests.tiny_cards import write_film
from zoo.engine.inputs import find_inputs, output_names, refuse_overwriting
from zoo.errors import OutputExistsError


@pytest.fixture
def films(tmp_path) -> Path:
    """Films in folders, one of them with a dot, and files that are none."""
    for name in ("a/1.png", "a/deep/1.PNG", "b/1.png", "b/2.jpg", ".hidden/1.png", "__MACOSX/1.png"):
        write_film(tmp_path / "films" / name)
    (tmp_path / "films" / "notes.txt").write_text("x")
    (tmp_path / "films" / "bare").write_bytes(b"\0" * 128 + b"DICM")
    return tmp_path / "films"


def relative(inputs, root) -> list[str]:
    return [str(path.relative_to(root)) for path in inputs.paths]


def test_a_folder_stands_for_all_images_below_it(films):
    inputs = find_inputs([films])
    assert relative(inputs, films) == ["a/1.png", "a/deep/1.PNG", "b/1.png", "b/2.jpg", "bare"]
    assert [path.name for path in inputs.left_out] == ["notes.txt"] and not inputs.problems
    assert output_names(inputs.places) == {str(films / p): p.split(".")[0] for p in relative(inputs, films)}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/1.png", ["a/1.png", "b/1.png"]),
        ("**/1.*", ["a/1.png", "a/deep/1.PNG", "b/1.png"]),
        ("[a-z]", ["a/1.png", "a/deep/1.PNG", "b/1.png", "b/2.jpg"]),
    ],
)
def test_a_pattern_mirrors_the_folders_after_its_fixed_part(films, pattern, expected):
    inputs = find_inputs([f"{films}/{pattern}"])
    assert relative(inputs, films) == expected
    assert list(output_names(inputs.places).values()) == [name.rsplit(".", 1)[0] for name in expected]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a/1", "a/deep/1", "b/1", "b/2"]),
        (["a/deep", "b"], ["a/deep/1", "b/1", "b/2"]),
        (["a", "a/deep", "b"], ["a/1", "a/deep/1", "b/1", "b/2"]),
        (["a/*.png", "b/*.jpg"], ["a/1", "b/2"]),
        (["b/*.png", "b/*.jpg"], ["1", "2"]),
        (["b/2.jpg", "a"], ["2", "1", "deep/1"]),
    ],
)
def test_several_folders_are_mirrored_each(films, monkeypatch, names, expected):
    """By relative names and by absolute ones; one folder alone, or a file beside it, has no folder of its own."""
    monkeypatch.chdir(films)
    for given in (names, [f"{films}/{name}" for name in names], [f"./{name}" for name in names]):
        assert list(output_names(find_inputs(given).places).values()) == expected


def test_files_are_taken_as_they_are_and_once(films):
    odd = write_film(films / "odd[1].png")
    gone = films / "gone.png"
    inputs = find_inputs([odd, str(odd), gone, films / "notes.txt"])
    assert inputs.paths == [odd, gone, films / "notes.txt"], "what cannot be read is reported when it is read"
    assert output_names(inputs.places)[str(odd)] == "odd[1]"


def test_what_names_no_image_is_said(films):
    (films / "empty").mkdir()
    inputs = find_inputs([films / "empty", f"{films}/*.bmp", films / "b"])
    assert list(inputs.problems.values()) == [f"{films}/empty: has no images", f"{films}/*.bmp: matches no file"]
    assert relative(inputs, films) == ["b/1.png", "b/2.jpg"]


def test_outputs_of_earlier_predictions_are_no_inputs(films):
    for name in ("out/a/1.png", "a/1-prediction.png", "a/1-prediction-overlay.png", "a/1-prediction-mask-2.png"):
        write_film(films / name)
    listed = [films / "out", films / "a" / "1-prediction.png"]
    assert relative(find_inputs([films], listed), films) == ["a/1.png", "a/deep/1.PNG", "b/1.png", "b/2.jpg", "bare"]
    assert relative(find_inputs([films / "out"], [films / "out"]), films) == ["out/a/1.png"], "it is named itself"


def test_files_of_one_stem_are_told_apart_by_the_folders_below_the_one_they_share():
    paths = [Path(name) for name in ("x/a/1.png", "x/b/1.png", "x/2.png", "x/2.jpg", "x/ct.nii.gz")]
    names = output_names({path: Path(path.name) for path in paths})
    assert list(names.values()) == ["a/1", "b/1", "2", "2-2", "ct"]


def test_no_output_is_named_as_an_input_beside_it(tmp_path):
    film = write_film(tmp_path / "film.png")
    assert output_names({film: Path("film.png")}, tmp_path) == {str(film): "film-prediction"}
    overlay = write_film(tmp_path / "out" / "film-overlay.png")
    names = output_names({film: Path("film.png"), overlay: Path("film-overlay.png")}, tmp_path / "out")
    assert names[str(film)] == "film-prediction", "its overlay would be film-overlay.png"


@pytest.mark.parametrize("name", ["a/film.png", "a/film.html", "a/film-overlay.png", "a/film-seg.dcm"])
def test_nothing_is_overwritten(tmp_path, name):
    refuse_overwriting(tmp_path, {"film.png": "a/film"})
    write_film(tmp_path / "a" / "film-other.png")
    refuse_overwriting(tmp_path, {"film.png": "a/film"})
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=rf"{name} would be overwritten by the prediction for film\.png"):
        refuse_overwriting(tmp_path, {"film.png": "a/film"})
