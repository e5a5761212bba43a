"""README and docs: generated blocks are fresh, code runs, links resolve, and every command, recipe, card and file exists."""

import re
import runpy
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import zoo
from zoo.config.recipe import list_recipes

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WRITTEN = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", ".github/pull_request_template.md")
] + [path for path in sorted(DOCS.rglob("*.md")) if path.parent.name != "api"]
PLACEHOLDERS = {"my-card", "my-llava", "NAME", "CARD"}
"""Names of cards that a reader makes."""


def relative(path: Path) -> str:
    """A page's name in test ids."""
    return str(path.relative_to(ROOT))


def fenced_blocks(text: str, *languages: str) -> list[str]:
    """The content of fenced code blocks in one of some languages."""
    pattern = rf"^( *)```(?:{'|'.join(languages)})\n(.*?)^ *```"
    return [textwrap.dedent(block) for _, block in re.findall(pattern, text, re.DOTALL | re.MULTILINE)]


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and mkdocs make it."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")


def test_generated_blocks_are_fresh(capsys):
    module = runpy.run_path(str(DOCS / "generate.py"))
    assert module["main"](check=True) == 0, capsys.readouterr().out


def test_the_generator_reports_a_stale_block(tmp_path, monkeypatch):
    module = runpy.run_path(str(DOCS / "generate.py"))
    fresh = (ROOT / "README.md").read_text()
    stale = re.sub(r"\| (\d+\.\d)", "| 99.9", fresh)
    assert stale != fresh and module["fill"](stale) == fresh


def test_the_command_reference_has_every_command_and_option():
    from typer.testing import CliRunner

    from zoo.cli.app import app

    text = (DOCS / "reference" / "cli.md").read_text()
    commands = re.findall(r"^## zoo (.+)$", text, re.MULTILINE)
    assert {"train", "predict", "data build", "publish"} <= set(commands)
    for command in commands:
        section = text.partition(f"## zoo {command}\n")[2].partition("\n## ")[0]
        help_text = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
        shown = set(re.findall(r"`(--[\w-]+)`", section.partition("| name |")[2]))
        offered = set(re.findall(r"(?<![\w`-])(--[a-z][\w-]*)", help_text.partition("Options")[2])) - {"--help"}
        assert shown == offered, command


def test_the_quick_start_ends_in_a_picture(tmp_path, monkeypatch):
    (code, *_) = fenced_blocks((ROOT / "README.md").read_text().partition("## Quick start")[2], "python")
    assert code.strip().count("\n") <= 5
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(DOCS)
    names: dict = {}
    exec(code, names)
    assert names["page"].is_file() and (tmp_path / "output" / "prediction-overlay.png").is_file()
    assert "effusion" in names["prediction"].answer and names["prediction"].masks


def test_readmes_parts_alone_run(capsys):
    _, code = fenced_blocks((ROOT / "README.md").read_text(), "python")
    exec(code, {})
    assert "573696" in capsys.readouterr().out


def test_the_tutorial_on_parts_runs(tmp_path, monkeypatch, striped_folder, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").symlink_to(striped_folder)
    names: dict = {}
    for code in fenced_blocks((DOCS / "tutorials" / "parts.md").read_text(), "python"):
        exec(code, names)
    printed = capsys.readouterr().out
    assert "torch.Size([2, 128])" in printed and "accuracy" in printed
    assert names["method"].trainer is names["trainer"] and list(tmp_path.joinpath("output").glob("*.png"))


@pytest.mark.parametrize("page", WRITTEN, ids=relative)
def test_python_in_pages_parses(page):
    for code in fenced_blocks(page.read_text(), "python"):
        compile(code, str(page), "exec")


def broken_links(page: Path) -> list[str]:
    """Relative links and pictures of a page that lead nowhere, with the anchors that no heading has."""
    broken = []
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists():
            broken.append(target)
        elif anchor and anchor not in {
            slug(title) for title in re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
        }:
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", WRITTEN, ids=relative)
def test_relative_links_pictures_and_anchors_resolve(page):
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n[a](missing.md) [b](#title) [c](page.md#nowhere) ![d](missing.png)\n")
    assert broken_links(page) == ["missing.md", "page.md#nowhere", "missing.png"]


def nav_pages(node) -> Iterator[str]:
    """The files that a nav lists."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from nav_pages(value)
    else:
        for item in node:
            yield from nav_pages(item)


def test_nav_lists_every_page_once():
    listed = list(nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if path.parent.name != "api"}
    assert len(listed) == len(set(listed)) and set(listed) == pages


def test_every_picture_is_shown_somewhere():
    text = "".join(page.read_text() for page in WRITTEN)
    pictures = [path for path in (DOCS / "pictures").rglob("*") if path.is_file()]
    assert len(pictures) >= 5
    assert [path.name for path in pictures if path.name not in text] == []


def shown_commands(page: Path) -> list[list[str]]:
    """Every ``zoo`` command line of a page, in blocks and in text, as words; braces are expanded."""
    text = page.read_text()
    blocks = "\n".join(fenced_blocks(text, "bash", "sh")).replace("\\\n", " ")
    lines = [part.strip() for line in blocks.splitlines() for part in re.split(r"&&|;", line.partition(" #")[0])]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += [" ".join(line.split()) for line in re.findall(r"`(zoo [^`]+)`", prose)]
    lines = [line.removeprefix("srun ") for line in lines]
    usage = re.compile(r"\[|\.\.\.$|^zoo [a-z ]+[A-Z]{2,}")  # of the reference: zoo train RECIPE [SETTINGS...]
    return [
        expanded(line)
        for line in lines
        if line.startswith("zoo ") and not (page.name == "cli.md" and usage.search(line))
    ]


def expanded(line: str) -> list[str]:
    """A command line as words, with ``{a,b}`` expanded as the shell does."""
    words = []
    for word in shlex.split(line):
        match = re.fullmatch(r"([^={]*)\{([\w,]+)\}([^=]*)", word)
        words += [match[1] + part + match[3] for part in match[2].split(",")] if match else [word]
    return words


def options_of(command: str) -> set[str]:
    """The options of a command, from its reference."""
    text = (DOCS / "reference" / "cli.md").read_text()
    section = text.partition(f"\n## zoo {command}\n")[2].partition("\n## ")[0]
    return {*re.findall(r"^\| `(--[\w-]+)` \|", section, re.MULTILINE), "--help"}


def problem_of(words: list[str]) -> str | None:
    """What does not exist in a shown command; None if all of it does."""
    commands = re.findall(r"^## zoo (.+)$", (DOCS / "reference" / "cli.md").read_text(), re.MULTILINE)
    verb = " ".join(words[1:3]) if " ".join(words[1:3]) in commands else words[1]
    if verb not in commands:
        return None if words[1] == "COMMAND" else f"no command {verb}"
    arguments = words[1 + len(verb.split()) :]
    if unknown := {word for word in arguments if word.startswith("--")} - options_of(verb):
        return f"no option {unknown} of {verb}"
    plain = [
        word
        for word in arguments
        if "/" in word and "=" not in word and not word.startswith(("runs/", "OWNER/", "RUN/"))
    ]
    recipes = [word for word in plain if verb in ("check", "plan", "train", "compare") and not word.endswith(".yaml")]
    if unknown := set(recipes) - set(list_recipes()) - {"METHOD/NAME"}:
        return f"no recipe {unknown}"
    card = arguments[0] if arguments else "--"
    is_card = not card.startswith("--") and (verb in ("predict", "verify") or (verb == "eval" and "/" not in card))
    return f"no card {card}" if is_card and card not in {*zoo.list_models(), *PLACEHOLDERS} else None


@pytest.mark.parametrize("page", WRITTEN, ids=relative)
def test_shown_commands_exist(page):
    assert [f"{' '.join(words)}: {problem}" for words in shown_commands(page) if (problem := problem_of(words))] == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("zoo trian nearl_clip/vitb16", "no command trian"),
        ("zoo train nearl_clip/vitb16 --resum", "no option"),
        ("zoo compare {coop,mapel}/chest_drr_16shot", "no recipe"),
        ("zoo predict no-such-card a.png", "no card"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line, problem):
    assert problem in (problem_of(expanded(line)) or "")


def test_commands_are_found_in_pages():
    assert len(shown_commands(ROOT / "README.md")) >= 8


@pytest.mark.parametrize("recipe", [name for name in list_recipes()])
def test_commands_in_the_head_of_a_recipe_are_its_own(recipe):
    head = re.findall(r"^# (zoo .+)$", (ROOT / "recipes" / f"{recipe}.yaml").read_text(), re.MULTILINE)
    assert head and all(words[2] == recipe and problem_of(words) is None for words in map(shlex.split, head))


@pytest.mark.parametrize("page", WRITTEN, ids=relative)
def test_named_files_extras_and_make_targets_exist(page):
    text = page.read_text()
    if page.name != "CHANGELOG.md":
        files = re.findall(r"`((?:zoo|tests|docs|recipes)/[\w/.-]+?\.(?:py|md|json|yaml))`", text)
        examples = {"recipes/vector_scaling/chest_drr_16shot.yaml"}
        assert [file for file in files if not (ROOT / file).is_file() and file not in examples] == []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"medvl-zoo\[(\w+)\]", text)) <= set(extras)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= set(targets)


def test_readmes_extras_are_those_of_the_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = (ROOT / "README.md").read_text().partition("| extra | adds |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:] if line))) == set(
        extras
    )


def test_the_fine_tuning_tutorials_recipe_is_valid(tmp_path, striped_folder):
    from zoo.config.building import check_recipe
    from zoo.config.recipe import read_recipe

    recipes = fenced_blocks((DOCS / "tutorials" / "fine_tune.md").read_text(), "yaml")
    assert len(recipes) == 3
    for text in recipes:
        (tmp_path / "mine.yaml").write_text(text)
        check_recipe(read_recipe(tmp_path / "mine.yaml"))


def test_the_recipe_for_questions_of_ones_own_trains(tmp_path, monkeypatch):
    """As it stands in the tutorial, on two records, from the published card."""
    from tests.tiny_models import medseg_files
    from zoo.config.building import resolve_recipe
    from zoo.config.recipe import read_recipe
    from zoo.engine.inspection import inspect_recipe
    from zoo.engine.training import read_log, train

    pytest.importorskip("gguf")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "tutorials" / "fine_tune.md").read_text().partition("## Masks for your own questions")[2]
    Path("questions.yaml").write_text(fenced_blocks(text, "yaml")[0])
    for seed, split in enumerate(("train", "val", "test")):
        lines = (medseg_files(tmp_path, count=2, side=40 + 8 * seed) / "data.jsonl").read_text()
        for number in range(2):
            Path(f"{number}.png").rename(f"{split}-{number}.png")
            lines = lines.replace(f'"{number}.png"', f'"{split}-{number}.png"')
        Path(f"{split}.jsonl").write_text(lines)
    settings = ["trainer.max_epochs=1", "trainer.precision=32-true", "trainer.enable_progress_bar=false"]
    recipe = read_recipe("questions.yaml", settings)
    assert inspect_recipe(resolve_recipe(recipe)).problems == []
    assert read_log(train(recipe, tmp_path / "run"))["train_loss"].dropna().between(0, 100).all()


def test_recipe_and_templates_of_public_data_are_valid(tmp_path):
    from zoo.config.building import check_recipe
    from zoo.config.recipe import read_recipe
    from zoo.data.conversations.templates import read_templates

    recipe, templates = fenced_blocks((DOCS / "reference" / "public_data.md").read_text(), "yaml")
    (tmp_path / "mine.yaml").write_text(recipe)
    check_recipe(read_recipe(tmp_path / "mine.yaml"))
    (tmp_path / "questions.yaml").write_text(templates)
    assert "pneumothorax" in read_templates(tmp_path / "questions.yaml").implicit


def test_the_recipe_with_scans_is_valid_and_divides_them_by_patient(tmp_path):
    from zoo.config.building import resolve_recipe
    from zoo.config.recipe import read_recipe

    (text,) = fenced_blocks((DOCS / "chest_drr.md").read_text(), "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    data = resolve_recipe(read_recipe(tmp_path / "mine.yaml")).data.build()
    splits = {scan.name: scan.split for scan in data.spec.scans}
    assert len(data.spec.scans) == 4 and sorted(splits.values()) == ["test", "train", "val"]


def test_recipes_of_the_reference_are_valid(tmp_path):
    from zoo.config.building import check_recipe
    from zoo.config.recipe import RecipeError, read_recipe

    whole, changed, variants, section = fenced_blocks((DOCS / "reference" / "recipes.md").read_text(), "yaml")
    (tmp_path / "whole.yaml").write_text(whole)
    (tmp_path / "changed.yaml").write_text(changed)
    (tmp_path / "variants.yaml").write_text(variants)
    (tmp_path / "section.yaml").write_text(f"base: changed\n{section}")
    for file in ("whole.yaml", "changed.yaml", "variants.yaml", "section.yaml"):
        check_recipe(read_recipe(tmp_path / file))
    with pytest.raises(RecipeError, match=r"changed\.yaml: method\.adapter\.rnak: .*did you mean rank"):
        (tmp_path / "changed.yaml").write_text(changed.replace("incremental_scale", "rnak"))
        check_recipe(read_recipe(tmp_path / "changed.yaml"))


def test_records_of_the_reference_are_read(tmp_path):
    import json

    import numpy as np
    from PIL import Image

    from zoo.data.classification.coop_split import read_coop_split
    from zoo.data.conversations.records import read_conversations
    from zoo.data.io.masks import encode_mask
    from zoo.data.traces.records import read_valid_records

    conversation, trace, split = map(json.loads, fenced_blocks((DOCS / "reference" / "records.md").read_text(), "json"))
    for file in (conversation["image"], *trace["images"]):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((256, 256), dtype=np.uint8)).save(tmp_path / file)
    conversation["masks"] = [encode_mask(np.ones((256, 256), dtype=bool))]
    (tmp_path / "conversations.jsonl").write_text(json.dumps(conversation) + "\n")
    (turn,) = read_conversations(tmp_path / "conversations.jsonl")[0].turns
    assert turn.targets[0].side == "right" and turn.kind == "implicit"
    (tmp_path / "traces.jsonl").write_text(json.dumps(trace) + "\n")
    (record,), problems = read_valid_records(tmp_path / "traces.jsonl")
    assert (
        not problems
        and record.steps[0].region == "right lower lung zone"
        and record.report == "Right pleural effusion."
    )
    (tmp_path / "split.json").write_text(json.dumps(split))
    assert read_coop_split(tmp_path / "split.json", tmp_path)[0] == ["normal", "tumour"]


def test_the_sentences_of_a_trace_are_in_the_reference_word_for_word(tmp_path):
    """What the reader and the writer know is what the page says, for each word that may open a step."""
    from types import SimpleNamespace

    from zoo.data.traces.records import SUMMARY, format_box, parse_response
    from zoo.decoders.evidence import VisionLanguageWriter

    writer = VisionLanguageWriter(SimpleNamespace(tokenizer=None, eos_token_id=0), "box")
    section = (DOCS / "reference" / "records.md").read_text().partition("## Traces")[2].partition("\n## ")[0]
    assert f"`{SUMMARY}`" in section and f"`{format_box((24, 124, 128, 244))}`" in section
    (words,) = re.findall(r"without a full stop: (.*?) \|", section)
    first, verbs, _ = words.split("; then ")
    for opening in re.split(r", | or ", first):
        for verb in re.split(r", | or ", verbs):
            text = f"{opening}, I need to {verb} the heart <image> {format_box((1, 2, 3, 4))} It is clear. {SUMMARY} Clear."
            (step,), report = parse_response(text)
            assert (step.region, step.box, step.statement, report) == ("heart", (1, 2, 3, 4), "It is clear.", "Clear.")
            assert writer.parse([text.replace(" <image>", "")])[0][0].region == "heart", "as a model writes it"


def test_versions_and_licences_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    readme = (ROOT / "README.md").read_text()
    assert f"version = {{{citation['version']}}}" in readme
    assert citation["license"] == project["license"] and f"license = {{{project['license']}}}" in readme
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    assert {item["value"] for item in citation["identifiers"]} == set(project["urls"].values())
    releases = re.findall(r"^## \[([\d.]+)\] - ([\d-]+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == (citation["version"], str(citation["date-released"]))


def test_the_version_is_the_last_release_or_on_the_way_to_the_next_and_renames_are_not_ahead_of_it():
    from packaging.version import Version

    from zoo.config.deprecations import RENAMED_COMPONENTS, RENAMED_KEYS

    changes = (ROOT / "CHANGELOG.md").read_text()
    version, (released, *_) = Version(zoo.__version__), re.findall(r"^## \[([\d.]+)\]", changes, re.MULTILINE)
    unreleased = changes.partition("## [Unreleased]\n")[2].partition("\n## ")[0].strip()
    assert (version.is_devrelease and version > Version(released)) if unreleased else version == Version(released)
    renames = [*RENAMED_COMPONENTS, *RENAMED_KEYS]
    assert renames and all(Version(renamed.since) <= Version(version.base_version) for renamed in renames)


def test_the_lowest_versions_are_the_bounds_of_every_dependency(capsys):
    module = runpy.run_path(str(ROOT / ".github" / "lowest_versions.py"))
    constraints = module["lowest_versions"](ROOT / "pyproject.toml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        assert requirement.replace(">=", "==") in constraints


def test_a_dependency_without_a_bound_is_refused(tmp_path):
    module = runpy.run_path(str(ROOT / ".github" / "lowest_versions.py"))
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\ndependencies = ["torch"]\n[project.optional-dependencies]\ndev = []\nreports = []\n')
    with pytest.raises(SystemExit, match="'torch' .* has no lower bound"):
        module["lowest_versions"](file)


def test_no_file_is_over_400_lines():
    long = [path for path in (ROOT / "zoo").rglob("*.py") if len(path.read_text().splitlines()) >= 400]
    assert not long
