import pytest

from zoo.data.chest_drr.rendering.cases import Case, CaseSpec, render_case
from zoo.data.chest_drr.rendering.findings import SEVERITIES


@pytest.fixture(scope="session")
def one_of_each() -> list[Case]:
    """A case of 64 pixels with each finding and severity, in the order of SEVERITIES, and one without a finding."""
    classes = [(kind, severity) for kind, severities in SEVERITIES.items() for severity in severities]
    spec = CaseSpec(image_size=64, classes=[*classes, None])
    return [render_case(spec, "train", index) for index in range(len(classes) + 1)]
