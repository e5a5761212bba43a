"""The folder of a benchmark: one at a time, and nothing of somebody else's."""

import pytest

from zoo.engine.report_folder import claimed
from zoo.engine.training import RunError
from zoo.errors import OutputExistsError, WriteError


def test_two_benchmarks_do_not_share_a_folder(tmp_path):
    out = tmp_path / "out"
    with claimed(out), pytest.raises(RunError, match="another benchmark is running in .*out; .*--out"), claimed(out):
        pass
    with claimed(out):
        assert (out / "rows").is_dir()


def test_a_folder_that_cannot_be_written_or_has_other_files_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteError, match=r"file/out cannot be written \(Not a directory\); .*--out"),
        claimed(tmp_path / "file" / "out"),
    ):
        pass
    with pytest.raises(OutputExistsError, match="has files that are not a benchmark's"), claimed(tmp_path):
        pass
