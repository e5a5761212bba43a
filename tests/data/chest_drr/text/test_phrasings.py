from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.text.phrasings import TEST, TRAIN
from zoo.data.chest_drr.text.questions import KINDS


def test_test_questions_are_phrased_as_in_no_other_split():
    train, test = (
        {text for kind in KINDS for finding in SEVERITIES for text in phrasing.questions(kind, finding)}
        for phrasing in (TRAIN, TEST)
    )
    assert not train & test
    for kind in KINDS:
        for phrasing in (TRAIN, TEST):
            assert len({text for finding in SEVERITIES for text in phrasing.questions(kind, finding)}) >= 40
