"""Questions and answers about marked regions, from templates that a file gives; how MedSeg-QA's questions were made (arXiv 2506.10465).

A template has ``{name}`` for the region ("left pleural effusion") and ``{sentence}`` for what a report says of it. The file is
YAML or JSON; what it leaves out is as by default:

```yaml
explicit: ["Segment the {name}.", "Where is the {name}?"]
phrases: ["Segment what this describes: {sentence}"]
answers: ["It is [SEG].", "The {name} is here [SEG]."]
implicit:
  pleural effusion: ["What should be drained?"]
absent: ["Is there a {name}?"]
denials: ["There is no {name}."]
```
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.annotations.base import Region
from zoo.data.conversations.formats import ANSWER
from zoo.data.conversations.records import REJ, SEG, QuestionError, Target, Turn, validate_question
from zoo.data.io.masks import RunLength

_KEYS = ("explicit", "phrases", "answers", "implicit", "absent", "denials")
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class QuestionTemplates:
    """Templates by the kind of question.

    Attributes:
        explicit: questions that name the region.
        phrases: questions about a region with a sentence, in place of the explicit ones.
        answers: to questions about a region that is there; each has one ``[SEG]``.
        implicit: questions that do not name it, by the name of the finding, without its side.
        absent: questions about a finding that is not there.
        denials: their answers, without ``[SEG]``.

    Raises:
        QuestionError: a template is malformed.
    """

    explicit: tuple[str, ...] = ("Segment the {name}.",)
    phrases: tuple[str, ...] = ("Segment what this describes: {sentence}",)
    answers: tuple[str, ...] = (ANSWER,)
    implicit: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    absent: tuple[str, ...] = ("Segment the {name}.",)
    denials: tuple[str, ...] = ("There is no {name}.",)

    def __post_init__(self) -> None:
        """Check every template on an example."""
        example = {"name": "finding", "sentence": "sentence"}
        implicit = [text for texts in self.implicit.values() for text in texts]
        for template in (*self.explicit, *self.phrases, *self.absent, *implicit):
            validate_question(_filled(template, example))
        for answer in self.answers:
            if _filled(answer, example).count(SEG) != 1:
                raise QuestionError(f"the answer '{answer}' must have one {SEG}, for the mask")
        for denial in self.denials:
            if SEG in _filled(denial, example):
                raise QuestionError(f"the denial '{denial}' has a {SEG}; there is nothing to segment")
        if not all((self.explicit, self.phrases, self.answers, self.absent, self.denials)):
            raise QuestionError(
                "there must be an explicit question, one for phrases, an absent one, an answer and a denial"
            )

    def turns(self, region: Region, mask: RunLength, rng: np.random.Generator) -> list[Turn]:
        """An explicit question about a region, and an implicit one where there are templates for it."""
        words = {"name": region.label, "sentence": region.sentence}
        stated = self.phrases if region.sentence else self.explicit
        chosen = [("explicit", stated), ("implicit", self.implicit.get(region.name, ()))]
        return [
            Turn(
                validate_question(_filled(_pick(templates, rng), words)),
                _filled(_pick(self.answers, rng), words),
                (mask,),
                (Target(region.name, region.side),),
                kind,
            )
            for kind, templates in chosen
            if templates
        ]

    def absent_turn(self, name: str, rng: np.random.Generator) -> Turn:
        """A question about a finding that is not there, and its denial."""
        words = {"name": name, "sentence": ""}
        question, denial = _filled(_pick(self.absent, rng), words), _filled(_pick(self.denials, rng), words)
        return Turn(validate_question(question), denial, kind="absent")


def read_templates(path: Path) -> QuestionTemplates:
    """Read templates from a YAML or JSON file; what it leaves out is as by default.

    Raises:
        QuestionError: it is missing, too large or malformed.
    """
    import yaml

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise QuestionError(f"{path}: is larger than {_MAX_BYTES} bytes")
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise QuestionError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(content, dict) or not content.keys() <= set(_KEYS):
        raise QuestionError(f"{path}: must have the keys {', '.join(_KEYS)}, or some of them")
    try:
        arguments: dict[str, Any] = {key: _texts(key, value) for key, value in content.items() if key != "implicit"}
        implicit = content.get("implicit") or {}
        if not isinstance(implicit, dict):
            raise QuestionError("'implicit' must be questions by the name of a finding")
        return QuestionTemplates(
            **arguments, implicit={str(name): _texts(str(name), texts) for name, texts in implicit.items()}
        )
    except QuestionError as error:
        raise QuestionError(f"{path}: {error}") from error


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        raise QuestionError(f"'{key}' must be a list of texts")
    return tuple(value)


def _filled(template: str, words: Mapping[str, str]) -> str:
    for name, word in words.items():
        template = template.replace(f"{{{name}}}", word)
    if REJ in template:
        raise QuestionError(f"'{template}' contains {REJ}; the method adds it where an answer denies")
    return " ".join(template.split())


def _pick(templates: tuple[str, ...], rng: np.random.Generator) -> str:
    return templates[int(rng.integers(len(templates)))]
