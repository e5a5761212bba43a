"""The model card's record: what the YAML front matter of a card must hold."""

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Field(pattern=r"^[0-9a-f]{64}$")
PLAIN_NAME = r"[\w][\w.-]{0,99}"
"""Of a card or file: no path, no space."""
PlainName = Field(pattern=f"^{PLAIN_NAME}$", max_length=100)


LICENSES = (
    "apache-2.0 mit bsd-2-clause bsd-3-clause isc zlib unlicense cc0-1.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 "
    "cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 gpl-2.0 gpl-3.0 "
    "lgpl-2.1 lgpl-3.0 agpl-3.0 mpl-2.0 epl-2.0 eupl-1.2 odbl odc-by pddl openrail openrail++ creativeml-openrail-m "
    "bigscience-openrail-m bigcode-openrail-m cdla-permissive-2.0 cdla-sharing-1.0 llama2 llama3 llama3.1 llama3.2 llama3.3 "
    "llama4 gemma h-research other unknown"
).split()
"""Licence names of the Hugging Face Hub that weights have; "unknown" grants nothing."""


MAX_TOLERANCE = 0.05
"""By which a metric that is measured again may differ at most, whatever a card says."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CardMetric(_Strict):
    """A number that ``zoo verify`` measures again.

    ``value`` may differ by ``tolerance``; ``interval`` is the 95% bootstrap interval over the ``n`` samples of ``split``;
    ``seeds`` are those of the runs that the value is from.
    """

    name: str
    value: float
    tolerance: float = Field(gt=0, le=MAX_TOLERANCE)
    split: str
    n: int = Field(gt=0)
    seeds: list[int]
    interval: tuple[float, float]


class CardFile(_Strict):
    """A file of the card, by name, size in bytes and hash."""

    name: str = PlainName
    size: int = Field(ge=0)
    sha256: str = Sha256


class CardBase(_Strict):
    """What the weights were trained on: cards or a public model by name, with the fingerprint of the frozen weights."""

    name: str
    license: str
    fingerprint: str = Sha256


class CardData(_Strict):
    """The data set: its registered name, licence, and how to get it."""

    name: str
    license: str
    source: str


class CardRecord(_Strict):
    """The whole record."""

    name: str = PlainName
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    method: str
    task: str
    license: str
    base: CardBase | None
    data: CardData
    parameters_total: int = Field(gt=0)
    parameters_trained: int = Field(ge=0)
    input: str
    output: str
    files: list[CardFile]
    metrics: list[CardMetric] = Field(min_length=1)
    intended_use: str
    out_of_scope_use: str
    limitations: str
    trained_with: str
