"""The app in gradio: what its functions return, over HTTP, and in a real browser where there is one."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import zoo
from tests.small_recipes import write_recipe
from tests.tiny_cards import publish_tiny_classifier, write_film
from tests.tiny_models import causal_lm, medseg_files
from zoo.cards.store import CardError
from zoo.cli.web_app import WebApp, build_app, example_films
from zoo.config.recipe import read_recipe
from zoo.data.conversations.records import QuestionError
from zoo.data.io.images import ImageError
from zoo.errors import ZooError

gradio = pytest.importorskip("gradio")


@pytest.fixture(scope="module")
def card(tmp_path_factory, striped_folder) -> str:
    return str(publish_tiny_classifier(tmp_path_factory.mktemp("card"), striped_folder))


@pytest.fixture(scope="module")
def address(card):
    page = build_app([card], "cpu")
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield address
    page.close()


def test_a_film_gives_probabilities_a_picture_and_files(card, tmp_path):
    app = WebApp([card], "cpu")
    probabilities, page, files = app.predict("tiny", str(write_film(tmp_path / "film.png")), "")
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4) and "data:image/png;base64," in page
    assert [Path(file).name for file in files] == ["film.json", "film.png"]
    assert json.loads(Path(files[0]).read_text())["class"] == max(probabilities, key=probabilities.get)


def test_a_question_gives_a_page_with_masks_to_download(card, tmp_path, monkeypatch):
    causal_lm(tmp_path / "lm")
    medseg_files(tmp_path / "medseg")
    method = zoo.assemble(read_recipe(write_recipe(tmp_path, "medseg_r causal_lm unet"))).method
    app = WebApp([card], "cpu")
    monkeypatch.setattr(app, "load", lambda card: method)
    film = str(write_film(tmp_path / "film.png"))
    probabilities, page, files = app.predict("tiny", film, "Where is it?", 0)
    assert probabilities is None and "<iframe sandbox" in page and "Where is it?" in page
    assert {"film.html", "film.json", "film-overlay.png"} <= {Path(file).name for file in files}
    with pytest.raises(QuestionError, match="empty"):
        app.predict("tiny", film, " ")


def test_what_cannot_be_predicted_is_said(card, tmp_path):
    app = WebApp([card], "cpu")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match="text.png"):
        app.predict("tiny", str(tmp_path / "text.png"), "")
    with pytest.raises(ZooError, match="upload an image first"):
        app.predict("tiny", None, "")
    with pytest.raises(CardError, match="no-such-card"):
        build_app(["no-such-card"])


def test_the_example_films_are_films():
    assert len(example_films()) == 3
    for file in example_films():
        assert Image.open(file).mode == "L" and min(Image.open(file).size) >= 128


def test_it_answers_over_http(address, tmp_path):
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False, download_files=str(tmp_path))
    film = handle_file(str(example_films()[0]))
    label, page, about, files = client.predict("tiny", film, "", None, api_name="/predict")
    assert {item["label"] for item in label["value"]["confidences"]} == {"stripes", "dots", "blank film"}
    assert "<img" in page and about.startswith("**tiny 1.0.0**") and len(files) == 2
    with pytest.raises(Exception, match="upload an image first"):
        client.predict("tiny", None, "", None, api_name="/predict")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_visitor_uploads_a_film_and_sees_its_classes(address, tmp_path):
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.goto(address)
        tab.set_input_files("input[type=file]", str(example_films()[1]))
        tab.get_by_role("button", name="Predict").click()
        tab.get_by_alt_text("Classification").wait_for(timeout=60_000)
        assert (
            tab.get_by_text("stripes").count()
            and tab.get_by_text("film.png").count() + tab.get_by_text(".json").count()
        )
        tab.screenshot(path=str(tmp_path / "app.png"), full_page=True)
        browser.close()
    assert (tmp_path / "app.png").stat().st_size > 10_000
