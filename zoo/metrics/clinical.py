"""Report metrics with models of their own, by name in a recipe; RadGraph, CheXbert, GREEN and RaTEScore run in radeval.

A component of the kind ``metric`` is called with reports and references, and returns a row for each report. The package
``radeval`` (Xu et al., EMNLP 2025) has the authors' code of the four metrics, ported to transformers 5.
"""

import importlib
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from zoo.config.components import Component
from zoo.config.validation import component_nodes, resolve_component
from zoo.errors import ArgumentError, MissingWeightsError
from zoo.metrics.reports import MissingMetricError
from zoo.metrics.weights import (
    MODEL_FILES,
    TOKENIZER_FILES,
    HubFiles,
    extracted,
    locate,
    model_view,
    read_json,
)
from zoo.registry import register

Summary = Callable[[torch.Tensor], float]
SCORERS = "StanfordAIMI/RRG_scorers"
"""The repository of RadGraph's and CheXbert's weights."""
TOP_FIVE = (1, 4, 5, 7, 9)
"""Cardiomegaly, edema, consolidation, atelectasis and pleural effusion among CheXbert's 14 labels."""
BLANK = 3
"""Characters from which on RaTEScore reads a sentence."""


class ReportMetric(Protocol):
    """Scores reports against references.

    Optional methods: ``check()`` says what is missing, before anything trains and without loading it; ``prepare()`` loads what
    the metric needs, before reports are generated; ``summaries(name)`` gives functions of the rows of all reports to one number,
    by name, where that is not their mean.
    """

    def __call__(self, reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
        """A score for each report (n), or a row (n, ...)."""


def build_report_metrics(specs: Sequence[str | dict[str, Any]]) -> dict[str, ReportMetric]:
    """The metrics that a recipe names, by name.

    Raises:
        ArgumentError: there is none of a name, an argument does not fit, or a name comes twice.
    """
    metrics: dict[str, ReportMetric] = {}
    for node in component_nodes(list(specs)):
        component, problems = _resolved(node)
        if component is None or problems:
            raise ArgumentError("; ".join(problems))
        if component.name in metrics:
            raise ArgumentError(f"the metric '{component.name}' is named twice")
        metrics[component.name] = component.build()
    return metrics


def summaries_of(name: str, metric: ReportMetric) -> dict[str, Summary]:
    """Functions of a metric's rows to one number; the mean over the reports that have a score by default."""
    summaries: Callable[[str], dict[str, Summary]] | None = getattr(metric, "summaries", None)
    return {name: lambda rows: float(rows.nanmean())} if summaries is None else summaries(name)


def _resolved(node: Any) -> tuple[Component | None, list[str]]:
    """The component that a recipe names, and what is wrong with it."""
    problems: list[str] = []

    def report(key: str, message: str) -> None:
        argument = key.removeprefix("metric").removeprefix(".")
        problems.append(message if argument in ("", "name") else f"{argument} {message}")

    return resolve_component("metric", node, "metric", report), problems


def _check_spec(spec: str | dict[str, Any]) -> str | dict[str, Any]:
    _, problems = _resolved(component_nodes(spec)[0])
    if problems:
        raise PydanticCustomError("unknown_metric", "{message}", {"message": "; ".join(problems)})
    return spec


ReportMetricSpec = Annotated[str | dict[str, Any], AfterValidator(_check_spec)]
"""A registered metric as a recipe has it: its name, or ``{name: ..., path: ...}``."""


class _RadevalMetric:
    """A metric of radeval, whose weights are in a folder of the user's or on the hub."""

    path: str | None
    _scorer: Any

    def check(self) -> None:
        """See :class:`ReportMetric`.

        Raises:
            MissingWeightsError: there is no such folder.
            MissingMetricError: radeval is not installed.
        """
        if self.path is not None and not Path(self.path).expanduser().is_dir():
            raise MissingWeightsError(f"there is no folder {self.path}")
        if find_spec("radeval") is None:
            raise MissingMetricError("needs the package radeval: pip install 'medvl-zoo[clinical]'")

    def prepare(self) -> None:
        """Load the model.

        Raises:
            MissingMetricError: radeval is not installed.
            MissingWeightsError: its weights are not here.
        """
        _ = self._scorer


@register("metric", "radgraph")
class RadGraphF1(_RadevalMetric):
    """RadGraph F1 (Jain et al., arXiv 2106.14463; Delbrouck et al., arXiv 2210.12186), from the package ``radeval``."""

    def __init__(
        self,
        path: str | None = None,
        reward: Literal["simple", "partial", "complete"] = "partial",
        model: Literal["radgraph", "radgraph-xl", "modern-radgraph-xl"] = "radgraph-xl",
    ) -> None:
        """Name the weights; they are loaded when they are needed.

        Args:
            path: folder with MODEL.tar.gz, or with what is in it (config.json, vocabulary, weights.th), and with the encoder's
                config.json and tokenizer in a folder ``encoder``; None downloads both.
            reward: what counts as a match: entities, entities and whether they have a relation, or their relations too.
            model: of the annotations.
        """
        self.path, self.reward, self.model = path, reward, model

    def __call__(self, reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
        """A score for each report (n); 0 for an empty one."""
        with _quietly():
            _, rewards, *_ = self._scorer(hyps=list(reports), refs=list(references))
        return torch.tensor(rewards, dtype=torch.float32)

    @cached_property
    def _scorer(self) -> Any:
        radgraph = radeval_module("radgraph", "radgraph")
        folder = self._folder()
        encoder = self._encoder(read_json(folder / "config.json"))
        with ExitStack() as stack:
            stack.enter_context(_quietly())
            config = _with_encoder(read_json(folder / "config.json"), str(encoder))
            view = stack.enter_context(model_view(folder, ("config.json", "vocabulary", "weights.th"), config))
            cache = Path(stack.enter_context(TemporaryDirectory()))
            (cache / self.model).symlink_to(view)
            device = 0 if torch.cuda.is_available() else -1
            return radgraph.F1RadGraph(self.reward, self.model, model_cache_dir=str(cache), cuda=device)

    def _folder(self) -> Path:
        archive = f"{self.model}.tar.gz"
        if self.path is not None and (Path(self.path).expanduser() / "weights.th").is_file():
            return locate("radgraph", self.path, {"": HubFiles(SCORERS, (), ("config.json", "vocabulary"))})[""]
        files = HubFiles(SCORERS, (archive,), (archive,))
        return extracted(locate("radgraph", self.path, {"": files})[""] / archive)

    def _encoder(self, config: dict[str, Any]) -> Path:
        """Configuration and tokenizer of the encoder that the archive names."""
        try:
            name = str(config["dataset_reader"]["token_indexers"]["bert"]["model_name"])
        except (KeyError, TypeError) as error:
            raise ArgumentError(f"config.json of {self.model} names no encoder") from error
        return locate("radgraph", self.path, {"encoder": HubFiles(name, ("config.json", *TOKENIZER_FILES))})["encoder"]


@register("metric", "chexbert")
class CheXbertF1(_RadevalMetric):
    """F1 over the labels of CheXbert (Smit et al., arXiv 2004.09167), positive and uncertain as 1, from the package ``radeval``.

    Micro and macro F1 over all reports, of the 14 labels and of the five that papers report (cardiomegaly, edema,
    consolidation, atelectasis, pleural effusion). Macro F1 counts a label that nothing has as 0, as scikit-learn does.
    """

    def __init__(self, path: str | None = None) -> None:
        """Name the weights; they are loaded when they are needed.

        Args:
            path: folder with chexbert.pth, and with config.json and tokenizer of bert-base-uncased; None downloads both.
        """
        self.path = path

    def __call__(self, reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
        """Labels (n, 2, 14) of each report and of its reference, 0 or 1."""
        with _quietly():
            rows = [self._scorer.get_labels(list(texts)) for texts in (reports, references)]
        return torch.tensor(rows).transpose(0, 1)

    def summaries(self, name: str) -> dict[str, Summary]:
        """Micro and macro F1 of 14 and of 5 labels."""
        five = list(TOP_FIVE)
        return {
            f"{name}_micro_f1_14": lambda rows: label_f1(rows, macro=False),
            f"{name}_macro_f1_14": lambda rows: label_f1(rows, macro=True),
            f"{name}_micro_f1_5": lambda rows: label_f1(rows[..., five], macro=False),
            f"{name}_macro_f1_5": lambda rows: label_f1(rows[..., five], macro=True),
        }

    @cached_property
    def _scorer(self) -> Any:
        from transformers import BertConfig, BertModel, BertTokenizer

        module, base = (radeval_module(name, "chexbert") for name in ("f1chexbert.f1chexbert", "_chexbert_base"))
        parts = {
            "checkpoint": HubFiles(SCORERS, ("chexbert.pth",), ("chexbert.pth",)),
            "encoder": HubFiles("google-bert/bert-base-uncased", ("config.json", *TOKENIZER_FILES)),
        }
        folders = locate("chexbert", self.path, parts)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        weights = _chexbert_weights(folders["checkpoint"] / "chexbert.pth")
        with _quietly():
            model = base.BaseBertLabeler(
                device=device,
                backbone=BertModel(BertConfig.from_pretrained(folders["encoder"])),
                num_4way_heads=len(module.F1CheXbert.CONDITION_NAMES),
                state_dict=weights,
            )
            # Its constructor takes weights from the hub alone, and fails without a GPU.
            scorer = module.F1CheXbert.__new__(module.F1CheXbert)
            torch.nn.Module.__init__(scorer)
            tokenizer = BertTokenizer.from_pretrained(folders["encoder"])
            scorer._init_evaluator(model=model.eval(), tokenizer=tokenizer, device=device, batch_size=64)
        return scorer


@register("metric", "green")
class Green(_RadevalMetric):
    """GREEN (Ostmeier et al., arXiv 2405.03595): matched findings over these and clinically significant errors, counted by a model.

    The model of 7 billion parameters runs in the package ``radeval``: 14 GB on a GPU, 28 GB and minutes a report without.
    """

    def __init__(self, path: str | None = None) -> None:
        """Name the weights; they are loaded when they are needed.

        Args:
            path: folder of the model, as transformers saves it, in safetensors; None downloads GREEN-radllama2-7b (13 GB).
        """
        self.path = path

    def __call__(self, reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
        """A score for each report (n)."""
        with _quietly():
            _, _, scores, _ = self._scorer(list(references), list(reports))
        return torch.tensor([float("nan") if score is None else float(score) for score in scores])

    @cached_property
    def _scorer(self) -> Any:
        multiprocessing.get_start_method()  # settles it: radeval would make it "spawn", for every data loader too
        module = radeval_module("green_score.green", "green")
        patterns = (
            "config.json",
            "generation_config.json",
            "*.safetensors",
            "*.index.json",
            "tokenizer*",
            "*_map.json",
        )
        files = HubFiles("StanfordAIMI/GREEN-radllama2-7b", patterns, ("config.json", "*.safetensors"))
        folder = locate("green", self.path, {"": files})[""]
        with _quietly(), model_view(folder, patterns) as view:
            return module.GREEN(str(view), cpu=not torch.cuda.is_available(), num_gpus=1)


@register("metric", "ratescore")
class RateScore(_RadevalMetric):
    """RaTEScore (Zhao et al., arXiv 2406.16845): similarity of the entities of both reports, from the package ``radeval``."""

    def __init__(self, path: str | None = None, matrix: Literal["long", "short"] = "long") -> None:
        """Name the weights; they are loaded when they are needed.

        Args:
            path: folder with RaTE-NER-Deberta in ``entities`` and BioLORD-2023-C in ``synonyms``; None downloads both.
            matrix: the authors' weights of pairs of entity types, for long or for short reports.
        """
        self.path, self.matrix = path, matrix

    def __call__(self, reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
        """A score for each report (n); 0.5 where either has no entity, as the authors define it."""
        scores = torch.full((len(reports),), 0.5)
        # Blank texts have no sentence, and the pairs after one would be those of other reports.
        texts = zip(reports, references, strict=True)
        read = [index for index, pair in enumerate(texts) if all(len(text.strip()) >= BLANK for text in pair)]
        if read:
            pairs = [[texts[index] for index in read] for texts in (reports, references)]
            with _quietly():
                scores[read] = torch.tensor(self._scorer.compute_score(*pairs)[0], dtype=torch.float32)
        return scores

    @cached_property
    def _scorer(self) -> Any:
        module = radeval_module("RaTEScore.scorer", "ratescore")
        patterns = (*MODEL_FILES, *TOKENIZER_FILES)
        parts = {
            "entities": HubFiles("Angelakeke/RaTE-NER-Deberta", patterns),
            "synonyms": HubFiles("FremyCompany/BioLORD-2023-C", patterns),
        }
        folders = [str(folder) for folder in locate("ratescore", self.path, parts).values()]
        with _quietly():
            return module.RaTEScore(*folders, use_gpu=torch.cuda.is_available(), affinity_matrix=self.matrix)


def label_f1(rows: torch.Tensor, *, macro: bool) -> float:
    """F1 from labels (n, 2, labels) of predictions and targets; 0 where there is none, as scikit-learn has it."""
    predicted, target = rows[:, 0].bool(), rows[:, 1].bool()
    both, either = (predicted & target).sum(dim=0), predicted.sum(dim=0) + target.sum(dim=0)
    if not macro:
        both, either = both.sum(), either.sum()
    return float((2 * both / either.clamp(min=1)).mean())


def _chexbert_weights(file: Path) -> dict[str, torch.Tensor]:
    """The model's weights; torch reads tensors alone, and no code."""
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)["model_state_dict"]
        return {name.replace("module.", ""): value for name, value in saved.items()}
    except (pickle.UnpicklingError, RuntimeError, LookupError, TypeError, AttributeError, EOFError) as error:
        raise ArgumentError(f"{file} is no checkpoint of tensors, and is not loaded: {error}") from error


def _with_encoder(config: dict[str, Any], encoder: str) -> dict[str, Any]:
    """The sections of RadGraph's configuration that name its encoder, with a local folder for it."""
    config["dataset_reader"]["token_indexers"]["bert"]["model_name"] = encoder
    config["model"]["embedder"]["token_embedders"]["bert"]["model_name"] = encoder
    return {name: config[name] for name in ("dataset_reader", "model")}


@contextmanager
def _quietly() -> Iterator[None]:
    """What radeval prints is no result: it goes to standard error."""
    with redirect_stdout(sys.stderr):
        yield


def radeval_module(module: str, metric: str) -> Any:
    """A module of radeval.

    Raises:
        MissingMetricError: it is not installed, or cannot run here.
    """
    try:
        with _quietly(), _no_download_of_nltk():
            package = importlib.import_module("radeval")
            sys.modules.setdefault("RadEval", package)  # by which RadGraph of version 2.2.1 imports its own modules
            return importlib.import_module(f"radeval.metrics.{module}")
    except ImportError as error:
        raise MissingMetricError(
            f"the metric '{metric}' needs the package radeval ({error}): pip install 'medvl-zoo[clinical]'"
        ) from error
    except ValueError as error:  # spacy's, of compiled code for NumPy 1
        raise MissingMetricError(
            f"the metric '{metric}' cannot run with the installed spaCy ({error}): pip install 'spacy>=3.8'"
        ) from error


@contextmanager
def _no_download_of_nltk() -> Iterator[None]:
    """Radeval fetches a tokenizer's data when it is imported, which none of these metrics uses."""
    try:
        nltk: Any = importlib.import_module("nltk")
    except ImportError:
        yield
        return
    download = nltk.download
    nltk.download = lambda *_, **__: False
    try:
        yield
    finally:
        nltk.download = download
