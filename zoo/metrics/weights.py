"""Weights of report metrics: files that a user has, or those of the Hugging Face Hub, whose download is announced."""

import json
import shutil
import tarfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zoo.checksums import remove_damaged, write_checksum
from zoo.errors import ArgumentError, MissingWeightsError, ZooWarning
from zoo.files import replace_folder, scratch_folder
from zoo.paths import cache_folder

MODEL_FILES = ("config.json", "*.safetensors", "*.bin", "*.safetensors.index.json", "*.bin.index.json")
TOKENIZER_FILES = ("tokenizer*", "vocab*", "special_tokens_map.json", "spm.model", "merges.txt", "added_tokens.json")


@dataclass(frozen=True)
class HubFiles:
    """Files of a repository of the Hugging Face Hub.

    Attributes:
        repository: its name.
        patterns: of the files that are fetched.
        required: files without which a folder is not what it should be.
    """

    repository: str
    patterns: tuple[str, ...]
    required: tuple[str, ...] = ("config.json",)


def locate(metric: str, path: str | Path | None, parts: Mapping[str, HubFiles]) -> dict[str, Path]:
    """The folder of each part of a metric's weights.

    Args:
        metric: its name, for messages.
        path: folder with a subfolder for each part, named as it, or with the files of all; None takes the hub's.
        parts: the files, by a name of ours.

    Raises:
        MissingWeightsError: the folder lacks files, or they cannot be downloaded.
    """
    if path is None:
        return {name: _download(metric, files) for name, files in parts.items()}
    root = Path(path).expanduser()
    folders = {name: root / name if (root / name).is_dir() else root for name in parts}
    missing = [
        f"{folders[name] / file} ({files.repository})"
        for name, files in parts.items()
        for file in files.required
        if not any(folders[name].glob(file))
    ]
    if missing:
        raise MissingWeightsError(
            f"the weights of the metric '{metric}' are not complete; missing: {', '.join(missing)}. Put the files into "
            f"{root}, or into folders of it named {', '.join(parts)}; without `path` they are downloaded"
        )
    return folders


def _download(metric: str, files: HubFiles) -> Path:
    """The folder of files of the hub, downloaded where they are not cached, with a warning that says so."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    options: dict[str, Any] = {"repo_id": files.repository, "allow_patterns": list(files.patterns)}
    try:
        folder = Path(snapshot_download(**options, local_files_only=True))
        if all(any(folder.glob(file)) for file in files.required):
            return folder
    except LocalEntryNotFoundError:
        pass
    warnings.warn(
        f"the metric '{metric}' downloads {', '.join(files.patterns)} from https://huggingface.co/{files.repository} "
        f"({_licence_of(files.repository)}); `path` of the metric names a folder instead",
        ZooWarning,
        stacklevel=2,
    )
    try:
        return Path(snapshot_download(**options))
    except (OSError, ValueError) as error:  # huggingface_hub's errors of requests, and of names
        raise MissingWeightsError(
            f"the weights of the metric '{metric}' cannot be downloaded from {files.repository}: {error}. Give a folder "
            f"that has them: report_metrics: [{{name: {metric}, path: FOLDER}}]"
        ) from error


def _licence_of(repository: str) -> str:
    """What a repository says of its licence."""
    from huggingface_hub import model_info

    try:
        card = model_info(repository, timeout=10).card_data
    except (OSError, ValueError):
        return "licence unknown: its page cannot be read"
    licence = getattr(card, "license_name", None) or getattr(card, "license", None)
    return f"licence: {licence}" if licence else "it states no licence"


def extracted(archive: Path) -> Path:
    """The folder of a tar archive's files in the cache, extracted once, and again where one is damaged; no file leaves it.

    Raises:
        ArgumentError: it is no archive, or has members that would be written elsewhere.
    """
    stat = archive.stat()
    target = cache_folder() / "metrics" / f"{archive.name.split('.')[0]}-{stat.st_size}-{int(stat.st_mtime)}"
    files = [file for file in target.rglob("*") if file.is_file() and not file.name.startswith(".")]
    if files and not remove_damaged(files, "weights of a metric"):
        return target
    shutil.rmtree(target, ignore_errors=True)
    with scratch_folder(target.parent, ".extracting-") as scratch:
        draft = scratch / target.name
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(draft, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise ArgumentError(f"{archive} is no archive of weights: {error}") from error
        for file in [path for path in draft.rglob("*") if path.is_file()]:
            write_checksum(file)
        replace_folder(draft, target)
    return target


@contextmanager
def model_view(folder: Path, patterns: Sequence[str], changes: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """A folder with links to a model's files and without code of its own: no ``*.py``, no ``auto_map``.

    Packages that ask transformers to trust remote code find none in it.

    Args:
        folder: of the model.
        patterns: of the files in it.
        changes: keys of config.json that are replaced.

    Raises:
        ArgumentError: a configuration is no JSON object.
    """
    with TemporaryDirectory() as name:
        view = Path(name)
        for file in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
            if file.suffix == ".py":
                continue
            if file.name in ("config.json", "tokenizer_config.json"):
                content = read_json(file)
                content.pop("auto_map", None)
                content |= (changes or {}) if file.name == "config.json" else {}
                (view / file.name).write_text(json.dumps(content), encoding="utf-8")
            elif file.is_dir():
                shutil.copytree(file, view / file.name)
            else:
                (view / file.name).symlink_to(file.resolve())
        yield view


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ArgumentError: the file has something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{file} is no configuration: {error}") from error
    if not isinstance(content, dict):
        raise ArgumentError(f"{file} is no configuration: it is no object")
    return content
