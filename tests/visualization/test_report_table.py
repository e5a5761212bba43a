"""The page of a benchmark: table, and reports side by side."""

from PIL import Image

from zoo.metrics.intervals import Measured
from zoo.visualization.report_table import write_report_table
from zoo.visualization.tables import Row


def test_reports_stand_side_by_side_and_texts_are_escaped(tmp_path):
    Image.new("L", (20, 10)).save(tmp_path / "film.png")

    def line(name, report, **more):
        return {"image": str(tmp_path / name), "report": report, "reference": "True <b>.", "steps": [], **more}

    step = {"region": "heart", "box": [1, 2, 3, 4], "statement": "Large."}
    reports = {
        "first": [line("film.png", "One.", steps=[step]), line("moved.png", "", response="Heart <image> nothing")],
        "second": [line("film.png", "<script>alert(1)</script>")],
    }
    rows = [Row("first", "none", [0], {"bleu4": Measured(0.5, 0.4, 0.6, 2)}), Row("second", "none", [0], {})]
    write_report_table(rows, ["third: not possible: it generates no images"], reports, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert page.count('<section class="film">') == 2 and page.count("<h3>") == 3 and page.count("<img") == 1
    assert "<script>" not in page and "True &lt;b&gt;." in page and "50.0 (40.0 to 60.0)" in page
    assert "Heart &lt;image&gt; nothing" in page, "what was written in its place"
    assert "(no report)" in page and "the image has been moved" in page and "[1, 2, 3, 4]: Large." in page
    assert "third: not possible: it generates no images" in page
