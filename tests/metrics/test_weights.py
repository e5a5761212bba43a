"""Weights of metrics: from a folder, or from a hub that is served on this machine, with a warning that says so."""

import io
import json
import os
import subprocess
import sys
import tarfile

import pytest

from tests.hub_server import running_hub
from zoo.errors import ArgumentError, MissingWeightsError
from zoo.metrics.weights import HubFiles, extracted, locate, model_view, read_json

FILES = HubFiles("owner/scorer", ("*.pth", "config.json"), ("scorer.pth",))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def test_a_folder_has_the_parts_beside_one_another_or_each_in_a_folder(tmp_path):
    parts = {"scorer": FILES, "encoder": HubFiles("owner/encoder", ("config.json",))}
    (tmp_path / "scorer.pth").touch()
    with pytest.raises(
        MissingWeightsError, match=r"missing: .*config.json \(owner/encoder\).*folders of it named scorer, encoder"
    ):
        locate("chexbert", tmp_path, parts)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").touch()
    assert locate("chexbert", tmp_path, parts) == {"scorer": tmp_path, "encoder": tmp_path / "encoder"}


def test_an_archive_is_extracted_once_and_nowhere_else(tmp_path):
    def write(name):
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"hi"))

    write("inner/file.txt")
    folder = extracted(tmp_path / "a.tar.gz")
    assert (folder / "inner" / "file.txt").read_text() == "hi"
    (folder / "mark").touch()
    assert (extracted(tmp_path / "a.tar.gz") / "mark").exists(), "not extracted again"
    write("../../escaped.txt")
    with pytest.raises(ArgumentError, match="is no archive of weights"):
        extracted(tmp_path / "a.tar.gz")
    (tmp_path / "a.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ArgumentError, match="is no archive of weights"):
        extracted(tmp_path / "a.tar.gz")
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_view_of_a_model_has_none_of_its_code(tmp_path):
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "x.X"}, "model_type": "bert", "size": 1}')
    for name in ("x.py", "model.safetensors", "other.txt"):
        (tmp_path / name).write_text("content")
    with model_view(tmp_path, ("config.json", "x.*", "*.safetensors"), {"size": 2}) as view:
        assert sorted(path.name for path in view.iterdir()) == ["config.json", "model.safetensors"]
        assert read_json(view / "config.json") == {"model_type": "bert", "size": 2}
        assert (view / "model.safetensors").read_text() == "content"
    assert not view.exists() and json.loads((tmp_path / "config.json").read_text())["auto_map"]
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ArgumentError, match="is no configuration: it is no object"):
        read_json(tmp_path / "config.json")


DOWNLOAD = """
import sys, warnings
from zoo.errors import MissingWeightsError
from zoo.metrics.weights import HubFiles, locate
files = HubFiles(sys.argv[1], ("*.pth", "config.json"), ("scorer.pth",))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        try:
            folder = locate("chexbert", None, {"scorer": files})["scorer"]
            print(sorted(path.name for path in folder.iterdir()))
        except MissingWeightsError as error:
            print(error)
print(*[str(warning.message) for warning in caught if "downloads" in str(warning.message)], sep=chr(10))
"""


def test_a_download_says_what_from_where_and_under_which_licence(tmp_path):
    def run(repository):
        own = {
            "HF_ENDPOINT": hub.address,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", DOWNLOAD, repository],
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    with running_hub() as hub:
        hub.files["owner/scorer"] = {"scorer.pth": b"weights", "other.bin": b"x"}
        hub.cards["owner/scorer"] = {"license": "mit"}
        first, second, said = run("owner/scorer")
        assert first == second == "['scorer.pth']", "the second from the cache, without a word"
        assert "'chexbert' downloads *.pth, config.json from https://huggingface.co/owner/scorer (licence: mit)" in said
        hub.files["owner/bare"] = hub.files["owner/scorer"]
        assert "it states no licence" in run("owner/bare")[-1]
        error, *_ = run("owner/none")
        assert "cannot be downloaded from owner/none" in error and "path: FOLDER" in "\n".join(run("owner/none"))
