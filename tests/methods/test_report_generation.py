"""What all methods that write reports share: metrics by size of finding, consistency of a report, evidence reliance."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.tiny_trace import RECORD
from zoo.data.chest_drr.text.labels import LABELER
from zoo.data.traces.records import SUMMARY, IvlRecord, Step
from zoo.data.vocabulary import FindingVocabulary
from zoo.decoders.evidence import SequenceWriter
from zoo.methods.report_generation import SIZES, ReportGeneration, without_repeats
from zoo.metrics.reports import repeats_sentence


class Writer(SequenceWriter):
    """A token a character."""

    def __init__(self):
        super().__init__(None, "crop")

    def encode_text(self, text):
        return [ord(letter) for letter in text]

    def encode_prompt(self, prompt, images):
        return []

    def image_block(self, image):
        return []

    def image_targets(self, block):
        return []


class Letters:
    @staticmethod
    def batch_decode(rows):
        return ["".join(map(chr, row)) for row in rows]


class Dictated(ReportGeneration):
    """Writes given reports, and states what the evidence's mean says."""

    def __init__(self, reports):
        super().__init__("crop", "", "pixels", 100, "drop", 4, None, None)
        self.reports, self.writer, self.tokenizer, self.pad_token_id = reports, Writer(), Letters(), 0
        self.use_metadata({"labeler": LABELER, "vocabulary": FindingVocabulary(LABELER.labels)})

    image_encoder = None

    def image_fingerprint(self):
        return ""

    sequence_fingerprint = image_fingerprint

    def encode_images(self, images, whole):
        raise NotImplementedError

    encode_record = report_of = encode_images

    def generate(self, images, prompts=None):
        return [{"steps": [], "report": report, "images": []} for report in self.reports]

    def swapped_statements(self, swaps):
        own = [swap.images[swap.record.steps[swap.step].image] for swap in swaps]
        return [({str(float(a.mean()))}, {str(float(swap.other.mean()))}) for a, swap in zip(own, swaps, strict=True)]


def record(findings, areas) -> IvlRecord:
    return IvlRecord("Report. <image>", [], "Normal.", [Path("film.png")], findings=findings, finding_areas=areas)


def outputs_of(reports, records, swaps):
    method = Dictated(reports)
    images = [[torch.zeros(1, 4, 4)] * 3 for _ in records]
    outputs = method.evaluation_step({"record": records, "images": images, "swap": swaps})
    return method, method.complete_outputs(outputs)


def test_f1_by_size_ignores_findings_of_other_sizes():
    nodule, effusion = ("nodule", "left"), ("pleural effusion", "right")
    records = [record([nodule, effusion], [0.002, 0.1]), record([nodule], [0.004]), record([], [])]
    reports = ["A right pleural effusion.", "A nodule on the left.", "There is cardiomegaly."]
    method, outputs = outputs_of(reports, records, [None] * 3)
    metrics = method.metrics()
    assert metrics["clinical_f1"](outputs) == pytest.approx(2 * 2 / (3 + 3))
    assert metrics["clinical_f1_small"](outputs) == pytest.approx(2 * 1 / (2 + 2)), (
        "one of two nodules, one false finding"
    )
    assert metrics["clinical_f1_large"](outputs) == pytest.approx(2 * 1 / (2 + 1)), "the effusion, one false finding"
    assert metrics["clinical_f1_medium"](outputs) != metrics["clinical_f1_medium"](outputs), "NaN: there are none"
    bounds = sorted(SIZES.values())
    assert bounds[0][0] == 0 and bounds[-1][1] > 1 and all(a[1] == b[0] for a, b in pairwise(bounds))


def test_what_the_steps_state_is_scored_beside_the_report(monkeypatch):
    steps = [
        Step("First, I need to analyze the left lung.", 0, None, statement)
        for statement in ("Findings: no abnormality.", "Findings: left nodule. There is a nodule.")
    ]
    monkeypatch.setattr(Dictated, "generate", lambda self, *_: [{"steps": steps, "report": "No nodule.", "images": []}])
    method, outputs = outputs_of([""], [record([("nodule", "left")], [0.002])], [None])
    assert method.metrics()["clinical_f1_steps"](outputs) == 1.0 and method.metrics()["clinical_f1"](outputs) == 0.0


def test_records_without_areas_have_no_f1_by_size():
    method, outputs = outputs_of(["A nodule on the left."], [record([("nodule", "left")], None)], [None])
    assert method.metrics()["clinical_f1"](outputs) == 1.0
    assert all(method.metrics()[f"clinical_f1_{name}"](outputs) != 1.0 for name in SIZES)


def test_a_report_that_repeats_itself_or_contradicts_its_impression_is_counted():
    reports = [
        "Impression: cardiomegaly. Findings: There is severe cardiomegaly. There is severe cardiomegaly.",
        "Impression: cardiomegaly. Findings: Left pleural effusion.",
        "The heart is enlarged, with mild cardiomegaly.",
    ]
    method, outputs = outputs_of(reports, [record([], [])] * 3, [None] * 3)
    assert method.metrics()["repeated_sentences"](outputs) == pytest.approx(1 / 3)
    assert method.metrics()["impression_agreement"](outputs) == pytest.approx(1 / 2)


def test_evidence_reliance_is_over_the_records_with_a_swap():
    swaps = [(0, torch.ones(1, 4, 4)), (1, torch.zeros(1, 4, 4)), None]
    method, outputs = outputs_of(["Normal."] * 3, [RECORD] * 3, swaps)
    assert outputs["changed"][:2].tolist() == [1.0, 0.0] and outputs["changed"][2].isnan()
    assert method.metrics()["evidence_reliance"](outputs) == 0.5


def test_repeated_sentences_are_left_out_and_nothing_else_changes():
    report = "Impression: left nodule.\nFindings: A nodule of 1.5 cm. No mass. A mass of 2.5 cm. no mass. No mass."
    assert without_repeats(report) == (
        "Impression: left nodule.\nFindings: A nodule of 1.5 cm. No mass. A mass of 2.5 cm."
    )
    for text in ("", "No mass", "Findings: No mass. Findings: No effusion.", "1.5 cm. 2.5 cm."):
        assert without_repeats(text) == text
    assert repeats_sentence([without_repeats(report)]).tolist() == [0.0]
    method = Dictated([])
    for method.drop_repeats, expected in ((False, report), (True, without_repeats(report))):
        assert method.parsed([f"{SUMMARY} {report}"], torch.zeros(1, 4, 4))["report"] == expected


def test_a_report_that_was_not_written_scores_zero_and_not_what_a_judge_says_of_nothing():
    method = Dictated(["Normal.", ""])
    method.report_metrics = {"judge": lambda reports, _: torch.tensor([0.5] * len(reports))}
    method.use_metadata({"labeler": LABELER, "vocabulary": FindingVocabulary(LABELER.labels)})
    images = [[torch.zeros(1, 4, 4)] * 3 for _ in range(2)]
    outputs = method.evaluation_step({"record": [record([], [])] * 2, "images": images, "swap": [None] * 2})
    assert outputs["judge"].tolist() == [0.5, 0.0]
    assert math.isnan(method.metrics()["clinical_f1"](outputs)), "silence on normal films is not a perfect score"


def test_a_metric_of_reports_is_a_column_with_its_own_summaries():
    class Words:
        def __call__(self, reports, references):
            return torch.tensor(
                [[len(text.split()) for text in pair] for pair in zip(reports, references, strict=True)]
            )

        def summaries(self, name):
            return {f"{name}_ratio": lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum())}

    method = Dictated(["A nodule.", "Normal."])
    method.report_metrics = {"words": Words(), "same": lambda reports, _: torch.tensor([float("nan"), 1.0])}
    records = [record([], []), record([], [])]
    outputs = method.evaluation_step({"record": records, "images": [[torch.zeros(1, 4, 4)]] * 2, "swap": [None] * 2})
    assert outputs["words"].tolist() == [[2, 1], [1, 1]]
    metrics = method.metrics()
    assert metrics["words_ratio"](outputs) == 1.5 and metrics["same"](outputs) == 1.0 and "words" not in metrics
