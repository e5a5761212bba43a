"""Reports for chest_drr cases, in radiologists' phrasing with varied wording."""

import numpy as np

from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding
from zoo.data.chest_drr.rendering.volume import LOBES
from zoo.errors import ArgumentError

_PHRASES: dict[str, tuple[str, ...]] = {
    "pleural effusion": (
        "There is a {severity} {side} pleural effusion.",
        "{Severity} {side} pleural effusion with blunting of the costophrenic angle.",
        "{Severity} layering pleural fluid on the {side}.",
        "The {side} costophrenic angle is obscured by a {severity} effusion.",
    ),
    "consolidation": (
        "{Severity} consolidation in the {lobe}.",
        "There is {severity} airspace opacity in the {lobe}, consistent with consolidation.",
        "{Severity} airspace consolidation of the {lobe}.",
        "The {lobe} shows {severity} consolidation.",
    ),
    "nodule": (
        "A {severity} pulmonary nodule projects over the {lobe}.",
        "There is a {severity} nodule in the {lobe}.",
        "{Severity} rounded nodular opacity in the {lobe}.",
        "A {severity} well defined nodule is seen in the {lobe}.",
    ),
    "mass": (
        "A {severity} mass occupies the {lobe}.",
        "There is a {severity} rounded mass in the {lobe}.",
        "{Severity} pulmonary mass in the {lobe}.",
    ),
    "pneumothorax": (
        "There is a {severity} {side} pneumothorax.",
        "{Severity} {side} pneumothorax with a visible visceral pleural line.",
        "{Severity} {side} apical lucency without lung markings, in keeping with pneumothorax.",
    ),
    "atelectasis": (
        "{Severity} atelectasis of the {lobe}.",
        "There is {severity} atelectasis in the {lobe}.",
        "{Severity} volume loss in the {lobe}, consistent with atelectasis.",
    ),
    "cardiomegaly": (
        "There is {severity} cardiomegaly.",
        "{Severity} enlargement of the cardiac silhouette.",
        "The heart is enlarged, with {severity} cardiomegaly.",
    ),
}
_NORMAL: dict[str, tuple[str, ...]] = {
    "pleural effusion": ("No pleural effusion.", "The costophrenic angles are sharp.", "There is no pleural fluid."),
    "consolidation": ("The lungs are clear.", "No focal consolidation.", "There is no airspace disease."),
    "nodule": ("No pulmonary nodule.", "No suspicious nodule is seen."),
    "mass": ("No pulmonary mass.",),
    "pneumothorax": ("No pneumothorax.", "There is no pneumothorax."),
    "atelectasis": ("Lung volumes are preserved.", "No atelectasis."),
    "cardiomegaly": (
        "The heart is normal in size.",
        "Normal cardiac silhouette.",
        "Heart size is within normal limits.",
    ),
}
_CLEAR = ("No acute cardiopulmonary abnormality.", "Normal chest radiograph.", "Unremarkable chest radiograph.")


def describe(finding: Finding, rng: np.random.Generator, *, severity: bool = True) -> str:
    """One sentence on a finding, with or without its severity."""
    phrase = str(rng.choice(_PHRASES[finding.kind]))
    return _filled(phrase, finding.severity if severity else "", finding.side, finding.lobe)


def _filled(phrase: str, severity: str, side: str, lobe: str) -> str:
    text = " ".join(phrase.format(severity=severity, Severity=severity.capitalize(), side=side, lobe=lobe).split())
    return text[0].upper() + text[1:]


def stating(kind: str) -> list[str]:
    """A sentence for each place where a finding can be, without its severity; zero-shot prompts are made of them."""
    phrase = _PHRASES[kind][0]
    if "{lobe}" in phrase:
        return [_filled(phrase, "", "", lobe) for lobe in LOBES]
    return [_filled(phrase, "", side, "") for side in (("left", "right") if "{side}" in phrase else ("",))]


def denying(kind: str) -> list[str]:
    """The sentences that deny a finding."""
    return list(_NORMAL[kind])


def write_report(
    findings: list[Finding], kinds: list[str], rng: np.random.Generator, *, severity: bool = True, negatives: int = 2
) -> str:
    """A report on a case: a sentence a finding, then up to ``negatives`` of the other ``kinds`` said to be absent.

    Raises:
        ArgumentError: a finding is not among ``kinds``, so that the report would be silent about it.
    """
    unnamed = {finding.kind for finding in findings} - set(kinds)
    if unnamed or not set(kinds) <= set(SEVERITIES):
        raise ArgumentError(f"the report may name {kinds}, and the case has {sorted(unnamed)} besides")
    sentences = [describe(findings[i], rng, severity=severity) for i in rng.permutation(len(findings))]
    absent = [str(kind) for kind in rng.permutation([k for k in kinds if all(f.kind != k for f in findings)])]
    sentences += [str(rng.choice(_NORMAL[kind])) for kind in absent[:negatives]]
    if not findings:
        sentences.insert(int(rng.choice([0, len(sentences)])), str(rng.choice(_CLEAR)))
    return " ".join(sentences)


def words_of_reports() -> list[str]:
    """Texts that hold every word that a report can hold."""
    texts = [*_CLEAR, *(text for phrases in _NORMAL.values() for text in phrases)]
    for kind, severities in SEVERITIES.items():
        for phrase in _PHRASES[kind]:
            for severity in ("", *severities):
                texts += [_filled(phrase, severity, lobe.split()[0], lobe) for lobe in LOBES]
    return texts
