"""Reports on chest_drr cases, in radiologists' phrasing with varied wording (``reports.yaml``)."""

import numpy as np

from zoo.data.chest_drr.rendering.findings import SEVERITIES, Finding
from zoo.data.chest_drr.rendering.volume import LOBES
from zoo.data.chest_drr.text.wording import read_wording
from zoo.errors import ArgumentError


def describe(finding: Finding, rng: np.random.Generator, *, severity: bool = True) -> str:
    """One sentence that states a finding, with or without its severity."""
    template = str(rng.choice(read_wording("reports")["positive"][finding.kind]))
    return _fill_template(template, finding.severity if severity else "", finding.side, finding.lobe)


def _fill_template(template: str, severity: str, side: str, lobe: str) -> str:
    text = template.format(severity=severity, Severity=severity.capitalize(), side=side, lobe=lobe)
    text = " ".join(text.split())
    return text[0].upper() + text[1:]


def positive_sentences(finding: str) -> list[str]:
    """A sentence that states a finding, without its severity, for each side or lobe it can be in; for zero-shot prompts."""
    template = read_wording("reports")["positive"][finding][0]
    if "{lobe}" in template:
        return [_fill_template(template, "", "", lobe) for lobe in LOBES]
    return [_fill_template(template, "", side, "") for side in (("left", "right") if "{side}" in template else ("",))]


def negative_sentences(finding: str) -> list[str]:
    """The sentences that deny a finding."""
    return list(read_wording("reports")["negative"][finding])


def write_report(
    findings: list[Finding],
    names: list[str],
    rng: np.random.Generator,
    *,
    severity: bool = True,
    negatives: int = 2,
    ordered: bool = False,
) -> str:
    """A report on a case: a sentence for each finding, and sentences that deny up to ``negatives`` of the others.

    Args:
        findings: of the case.
        names: of the findings that the report may state or deny.
        rng: samples order and wording.
        severity: whether severities are stated.
        negatives: most findings that are denied.
        ordered: keep the order of ``findings``, so that a model need not remember which of them it has stated.

    Raises:
        ArgumentError: a finding is not among ``names``, so that the report would omit it.
    """
    omitted = {finding.kind for finding in findings} - set(names)
    if omitted or not set(names) <= set(SEVERITIES):
        raise ArgumentError(f"the report may name {names}, and the case has {sorted(omitted)} besides")
    wording = read_wording("reports")
    order = range(len(findings)) if ordered else rng.permutation(len(findings))
    sentences = [describe(findings[i], rng, severity=severity) for i in order]
    absent = [str(name) for name in rng.permutation([n for n in names if all(f.kind != n for f in findings)])]
    sentences += [str(rng.choice(wording["negative"][name])) for name in absent[:negatives]]
    if not findings:
        sentences.insert(int(rng.choice([0, len(sentences)])), str(rng.choice(wording["unremarkable"])))
    return " ".join(sentences)


def report_texts() -> list[str]:
    """Texts that hold every word that a report can hold."""
    wording = read_wording("reports")
    texts = [*wording["unremarkable"], *(text for sentences in wording["negative"].values() for text in sentences)]
    for finding, severities in SEVERITIES.items():
        for template in wording["positive"][finding]:
            for severity in ("", *severities):
                texts += [_fill_template(template, severity, lobe.split()[0], lobe) for lobe in LOBES]
    return texts
