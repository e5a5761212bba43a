"""Cards in the browser, by gradio: a film and a question in, classes, masks or a report out, with files to download.

Everything stays on the machine that serves it: the page loads nothing from elsewhere, and the uploads and results of a visit
are deleted when the server ends.
"""

import html
import importlib.resources
import json
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from zoo.cards.store import read_card
from zoo.config.building import resolve_recipe
from zoo.config.locations import has_value
from zoo.data.conversations.records import validate_question
from zoo.data.io.dicom import is_dicom
from zoo.data.io.dicom_seg import check_segmentable, write_dicom_seg
from zoo.data.io.images import ImageError, ImageOptions
from zoo.engine.api import single_device_trainer
from zoo.engine.loading import load
from zoo.engine.trainers import check_settings
from zoo.errors import UnsupportedError, ZooError
from zoo.methods.base import ZooModule
from zoo.methods.predictions import Classification, Prediction, Segmentation

NOTICE = "Research only; not for clinical use."
_LOADED = 4
"""Cards that are kept in memory."""


class WebApp:
    """Predictions of some cards, as a page needs them."""

    def __init__(self, cards: Sequence[str], device: str = "auto", settings: Sequence[str] = ()) -> None:
        """Check that the cards exist, and load none yet.

        Args:
            cards: names or folders.
            device: to predict on.
            settings: ``key=value`` changes of a card's recipe that has the key: of the source of its base.

        Raises:
            RecipeError: another setting is changed.
            CardError: one is missing or damaged.
            UnsupportedError: a card predicts nothing for a single image.
        """
        check_settings(settings)
        self._settings = list(settings)
        self.cards = {read_card(name).name: name for name in cards}
        for card in self.cards:
            if self.method_class(card).predict_images is ZooModule.predict_images:
                raise UnsupportedError(f"card '{card}' predicts nothing for a single image")
        self._device = device
        self._folder = tempfile.TemporaryDirectory(prefix="medvl-zoo-app-")
        self.load = lru_cache(maxsize=_LOADED)(self._load)

    def method_class(self, card: str) -> type[ZooModule]:
        """Of a card, which need not be loaded for it."""
        method: type[ZooModule] = resolve_recipe(read_card(self.cards[card]).recipe()).method.target
        return method

    def _load(self, card: str) -> ZooModule:
        name = self.cards[card]
        recipe = read_card(name).recipe()
        settings = [item for item in self._settings if has_value(recipe.content, item.partition("=")[0])]
        method = load(name, settings=settings)
        return method.to(single_device_trainer(recipe, self._device).strategy.root_device)

    def predict(
        self, card: str, file: str | None, question: str, frame: float | None = None
    ) -> tuple[dict[str, float] | None, str, list[str]]:
        """What the page shows: probabilities of a classifier, a page as HTML, and files to download.

        Args:
            card: one of the app's.
            file: the uploaded image.
            question: for a card that answers questions.
            frame: of a file with several; the first if None.

        Raises:
            ZooError: there is no image, it cannot be read, or the question is empty.
        """
        if not file:
            raise UnsupportedError("upload an image first: PNG, JPEG, TIFF, DICOM or NIfTI")
        method = self.load(card)
        image = ImageOptions(frame=None if frame is None else int(frame)).read(file)
        options: dict[str, Any] = {"question": validate_question(question)} if method.answers_questions else {}
        prediction = method.predict_image(image, **options)
        out = Path(tempfile.mkdtemp(dir=self._folder.name))
        main = prediction.save(out, Path(file).stem)
        (out / f"{main.stem}.json").write_text(json.dumps(prediction.to_dict(), indent=2) + "\n", encoding="utf-8")
        if isinstance(prediction, Segmentation) and prediction.masks and _is_segmentable(Path(file)):
            write_dicom_seg(Path(file), list(prediction.masks), prediction.labels, out / f"{main.stem}-seg.dcm")
        probabilities = prediction.probabilities if isinstance(prediction, Classification) else None
        return probabilities, _page(main, prediction), sorted(str(path) for path in out.iterdir())


def _is_segmentable(file: Path) -> bool:
    """Whether a DICOM SEG can refer to an image; what a DICOM image lacks is said on the page."""
    import gradio

    if not is_dicom(file):
        return False
    try:
        check_segmentable(file)
    except ImageError as error:
        gradio.Warning(str(error))
        return False
    return True


def _page(file: Path, prediction: Prediction) -> str:
    """The prediction's figure or page, in a frame of its own, so that nothing in it touches the app."""
    if file.suffix == ".html":
        content = html.escape(file.read_text(encoding="utf-8"), quote=True)
        return f'<iframe sandbox title="result" srcdoc="{content}" style="width:100%;height:640px;border:0"></iframe>'
    import base64

    data = base64.b64encode(file.read_bytes()).decode()
    return f'<img alt="{type(prediction).__name__}" src="data:image/png;base64,{data}" style="max-width:100%">'


def build_app(cards: Sequence[str], device: str = "auto", settings: Sequence[str] = ()) -> Any:
    """The page of gradio for some cards.

    Raises:
        CardError: a card is missing or damaged.
        UnsupportedError: gradio is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise UnsupportedError("the app needs gradio: pip install 'medvl-zoo[app]'") from error
    app = WebApp(cards, device, settings)
    names = list(app.cards)

    def answer(card: str, file: str | None, question: str, frame: float | None) -> tuple[Any, Any, str, list[str]]:
        try:
            probabilities, page, files = app.predict(card, file, question, frame)
        except ZooError as error:
            message = str(error).replace(str(file), Path(str(file)).name)  # and not the folder that gradio keeps it in
            raise gradio.Error(message, duration=None, print_exception=False) from None
        return gradio.Label(probabilities, visible=probabilities is not None), page, _describe(card), files

    def _describe(card: str) -> str:
        record = read_card(app.cards[card]).record
        numbers = ", ".join(f"{metric.name} {metric.value:.3f}" for metric in record.metrics[:3])
        return f"**{record.name} {record.version}**: {numbers}. {NOTICE}"

    def choose(card: str) -> tuple[Any, str, Any, str, list[str]]:
        asks = app.method_class(card).answers_questions
        return gradio.Textbox(visible=asks), _describe(card), gradio.Label(None, visible=False), "", []

    with gradio.Blocks(title="medvl-zoo", analytics_enabled=False) as page:
        gradio.Markdown(f"# medvl-zoo\n{NOTICE} Images stay on the machine that runs this page.")
        with gradio.Row():
            with gradio.Column(scale=1):
                card = gradio.Dropdown(names, value=names[0], label="Card")
                file = gradio.File(label="Film: PNG, JPEG, TIFF, DICOM or NIfTI", type="filepath")
                asks = app.method_class(names[0]).answers_questions
                question = gradio.Textbox(label="Question", value="Segment the heart.", visible=asks)
                frame = gradio.Number(label="Frame, of a file with several", precision=0, value=None, minimum=0)
                button = gradio.Button("Predict", variant="primary")
                gradio.Examples([[str(path)] for path in example_films()], [file], label="Example films (rendered)")
            with gradio.Column(scale=2):
                about = gradio.Markdown(_describe(names[0]))
                label = gradio.Label(label="Classes", visible=False, num_top_classes=3)
                result = gradio.HTML(label="Result")
                files = gradio.Files(label="Downloads", interactive=False)
        card.change(choose, [card], [question, about, label, result, files])
        button.click(answer, [card, file, question, frame], [label, result, about, files], api_name="predict")
    return page


def example_films() -> list[Path]:
    """Rendered films that come with the package."""
    folder = importlib.resources.files("zoo.data.chest_drr") / "examples"
    return sorted(Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".png"))
