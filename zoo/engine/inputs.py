"""Which files are predicted, by name, folder or pattern, and what their outputs are called."""

import glob
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo.data.io.images import HIDDEN_FOLDER, find_image_files
from zoo.errors import OutputExistsError

_ACCOMPANYING = ("-overlay.png", "-mask-1.png", "-seg.dcm")
"""Ends of files that predictions write beside their main file."""
_ACCOMPANYING_STEM = re.compile(r"-(overlay|mask-\d+|seg)$")
_MAIN = (".html", ".png", ".json")


@dataclass
class Inputs:
    """Files to predict, each with its place below the folder or pattern that named it, and what names no file.

    ``left_out`` are files of a folder that are no images.
    """

    places: dict[Path, Path] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    left_out: list[Path] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        """The files, in the order that they were named in."""
        return list(self.places)


def find_inputs(names: Sequence[str | Path], outputs: Sequence[Path] = ()) -> Inputs:
    """The files that names stand for. The places of several folders begin with what tells them apart.

    Args:
        names: files; folders, for all images below them; or patterns with ``*``, ``?``, ``[...]`` and ``**`` (any folders).
        outputs: files and folders of earlier predictions, which are no inputs where a folder or pattern holds them.
    """
    found = Inputs()
    written = {output.resolve() for output in outputs}
    bases: dict[Path, Path] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            images, others = find_image_files(path)
            found.left_out += [other for other in others if not _is_written(other, path, written)]
            matches, base, what = images, path, "has no images"
        elif not path.exists() and glob.has_magic(str(name)):
            base = _folder_of_pattern(str(name))
            matches, what = _matches(str(name)), "matches no file"
        else:
            found.places.setdefault(path, Path(path.name))
            continue
        matches = [match for match in matches if not _is_written(match, base, written)]
        for match in matches:
            found.places.setdefault(match, match.relative_to(base))
            bases.setdefault(match, base)
        if not matches:
            found.problems[str(name)] = f"{name}: {what}"
    folders = {base: os.path.abspath(base) for base in bases.values()}
    if len(set(folders.values())) > 1:  # each is mirrored below the folder that they share
        common = os.path.commonpath(list(folders.values()))
        found.places |= {
            path: Path(os.path.relpath(folders[base], common)) / found.places[path] for path, base in bases.items()
        }
    return found


def _matches(pattern: str) -> list[Path]:
    paths = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    paths = [path for path in paths if HIDDEN_FOLDER not in path.parts]
    return [file for path in paths for file in (find_image_files(path)[0] if path.is_dir() else [path])]


def _folder_of_pattern(pattern: str) -> Path:
    """The folders of a pattern before its first part with a wildcard."""
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _is_written(path: Path, base: Path, written: set[Path]) -> bool:
    """Whether a file is an output, or lies in a folder of outputs below the folder that was named."""
    resolved, root = path.resolve(), base.resolve()
    main = resolved.with_name(_ACCOMPANYING_STEM.sub("", resolved.stem))
    is_output = any(main.with_name(f"{main.name}{end}") in written for end in _MAIN)
    return is_output or resolved in written or any(folder in written and folder != root for folder in resolved.parents)


def output_names(inputs: Mapping[Path, Path], out: Path | None = None) -> dict[str, str]:
    """A name for each input's outputs, unique among them: its place without suffix, so that folders are mirrored.

    Files that were named one by one and have the same stem are placed as they lie below the folder that they share. Where outputs
    would lie beside inputs whose names begin alike, the name says that it is a prediction, so that no input is overwritten.

    Args:
        inputs: files with their places.
        out: folder of the outputs.
    """
    stems_in = defaultdict(set)
    for path in inputs:
        stems_in[path.resolve().parent].add(path.stem)
    names: dict[str, str] = {}
    taken: set[Path] = set()
    for path, place in _apart(inputs).items():
        base, number = _without_suffix(place), 1
        beside = stems_in[(out / base).parent.resolve()] if out is not None else set()

        def is_taken(name: Path, beside: set[str] = beside) -> bool:
            return name in taken or any(stem == name.name or stem.startswith(f"{name.name}-") for stem in beside)

        name = base
        if is_taken(name) and name not in taken:
            base = name = base.with_name(f"{base.name}-prediction")
        while is_taken(name):
            number += 1
            name = base.with_name(f"{base.name}-{number}")
        taken.add(name)
        names[str(path)] = name.as_posix()
    return names


def _without_suffix(place: Path) -> Path:
    name = place.name
    return place.with_name(name[: -len(".nii.gz")]) if name.lower().endswith(".nii.gz") else place.with_suffix("")


def _apart(inputs: Mapping[Path, Path]) -> dict[Path, Path]:
    """Places of inputs; those at one place, from different folders, get that below the folder that they share."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for path, place in inputs.items():
        groups[_without_suffix(place)].append(path)
    places = dict(inputs)
    for paths in groups.values():
        if len({path.absolute().parent for path in paths}) > 1:
            common = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
            places |= {path: Path(os.path.relpath(os.path.abspath(path), common)) for path in paths}
    return places


def refuse_overwriting(out: Path, names: Mapping[str, str]) -> None:
    """Check that no prediction overwrites a file.

    Raises:
        OutputExistsError: one would.
    """
    for path, name in names.items():
        for end in (*_MAIN, *_ACCOMPANYING):
            if (file := out / f"{name}{end}").exists():
                raise OutputExistsError(
                    f"{file} would be overwritten by the prediction for {path}; choose another folder, or use --overwrite"
                )
