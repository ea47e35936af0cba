"""The documentation: its tables say what the code says, its links lead somewhere, its commands
parse, its examples run."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from netzip_mlflow import recipe as recipes
from netzip_mlflow import techniques
from netzip_mlflow.metrics.catalogue import METRICS
from netzip_mlflow.techniques.trained import Taught, Trained

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
EXTENDING = DOCS / "extending.md"


class Block(NamedTuple):
    """A fenced block: its language, its text, and the file that its first line names."""

    page: str
    language: str
    text: str
    file: str


def blocks(*pages: Path, language: str = "") -> list[Block]:
    found = []
    for page in pages:
        for kind, text in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.S | re.M):
            named = re.match(r"# (\S+\.(?:py|yaml|toml))\n", text)
            found.append(Block(page.name, kind, text, named.group(1) if named else ""))
    return [block for block in found if language in ("", block.language)]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of tables whose first cell is a name in backticks: name to its other cells."""
    found = {}
    for line in text.splitlines():
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and (name := re.fullmatch(r"`([\w.]+)`", cells[0])):
            assert name.group(1) not in found, f"{name.group(1)} stands there twice"
            found[name.group(1)] = cells[1:]
    return found


def section(page: Path, heading: str) -> str:
    """What stands below a heading, up to the next one of any level."""
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", page.read_text(), re.S | re.M)
    assert match, f"{page.name} has no heading {heading!r}"
    return match.group(1)


def as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


# techniques.md


def test_techniques_table_is_the_metadata():
    traits = {name: techniques.find(name).traits for name in techniques.TABLE}
    needs = {
        name: ", ".join(
            what
            for what, needed in (
                ("calibration data", t.needs_calibration),
                ("training", t.needs_training),
                ("new structure", t.stage == "structure"),
            )
            if needed
        )
        for name, t in traits.items()
    }
    page = DOCS / "techniques.md"
    assert rows(section(page, "Techniques")) == {
        name: [t.family, t.kind, needs[name] or "-", t.summary] for name, t in traits.items()
    }
    headings = re.findall(r"^## `(\w+)`$", page.read_text(), re.M)
    assert headings == list(techniques.TABLE)


def parameters(technique: type) -> dict[str, list[str]]:
    """A table's rows: allowed, default, meaning."""
    table = {}
    for field in dataclasses.fields(technique):
        bounds = field.metadata["bounds"]
        allowed = str(bounds).replace("|", r"\|")
        table[field.name] = [allowed, f"`{as_yaml(field.default)}`", bounds.help]
    return table


def test_parameters_of_training_are_the_metadata():
    assert rows(section(DOCS / "techniques.md", "Training")) == parameters(Taught)


@pytest.mark.parametrize("name", techniques.TABLE)
def test_techniques_parameters_are_the_metadata(name: str):
    technique = techniques.find(name)
    shared = parameters(next((c for c in (Taught, Trained) if issubclass(technique, c)), Empty))
    wanted = {k: row for k, row in parameters(technique).items() if shared.get(k) != row}
    text = section(DOCS / "techniques.md", f"`{name}`")
    assert rows(text) == wanted
    assert ("(#training)" in text) == bool(shared)


@dataclasses.dataclass
class Empty:
    """A technique that does not train."""


# recipes.md


def schema_keys() -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every leaf of the recipe's schema: path, JSON schema, whether it is required."""
    whole = recipes.Recipe.model_json_schema()

    def walk(model: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
        for key, given in model["properties"].items():
            options = [given, *given.get("anyOf", ())]
            names = [o["$ref"].rpartition("/")[2] for o in options if "$ref" in o]
            below = [n for n in names if n != "SplitRule"]
            if below:
                yield from walk(whole["$defs"][below[0]], f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", given, key in model.get("required", ())

    yield from walk(whole, "")
    yield from walk(whole["$defs"]["SplitRule"], "")


def limits(schema: Any) -> Iterator[str]:
    """Bounds and choices anywhere in a key's schema, as a page would write them."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key.lower().endswith(("minimum", "maximum")):
                yield f"{value:g}" if value < 1e6 else str(int(value))
            elif key != "default":
                yield from limits(value)
        yield from (f"`{as_yaml(choice)}`" for choice in schema.get("enum", ()))
    elif isinstance(schema, list):
        for each in schema:
            yield from limits(each)


def test_recipe_keys_are_the_schema():
    documented = rows((DOCS / "recipes.md").read_text())
    keys = {key: (given, required) for key, given, required in schema_keys()}
    assert documented.keys() >= keys.keys()
    others = {name for name in documented if name.isupper() or name.endswith(".yaml")}
    unknown = documented.keys() - keys.keys() - others
    assert not unknown, f"no such keys: {unknown}"
    for key, (given, required) in keys.items():
        allowed, default = documented[key][:2]
        assert default == ("required" if required else f"`{as_yaml(given.get('default'))}`"), key
        missing = [limit for limit in limits(given) if limit not in allowed]
        assert not missing, f"{key}: {allowed!r} does not name {missing}"


# measuring.md


def metric_table(family: str) -> str:
    """The table of a family's metrics, or of the headers that `netzip score` reads."""
    if family == "columns":
        units = {1.0: "", 1e6: "10^6", 1e9: "10^9"}
        lines = ["| header | is | times |", "|---|---|---|"]
        lines += [f"| `{m.column}` | `{m.key}` | {units[m.factor]} |" for m in METRICS if m.column]
    else:
        lines = ["| key | says | better |", "|---|---|---|"]
        for m in METRICS:
            if m.key.startswith(f"{family}/"):
                spread = ", with its interval" if m.interval else ""
                lines.append(f"| `{m.key}` | {m.help}{spread} | {m.better} |")
    return "\n" + "\n".join(lines) + "\n\n"


def test_tables_of_metrics_are_the_records(request: pytest.FixtureRequest):
    """`--write-golden` writes them between their markers."""
    page = DOCS / "measuring.md"
    parts = re.compile(r"(<!-- metrics: (\w+) -->\n)(.*?)(?=<!-- end -->)", re.S)
    written = parts.sub(lambda match: match[1] + metric_table(match[2]), page.read_text())
    if request.config.getoption("--write-golden"):
        page.write_text(written)
    assert page.read_text() == written, "pytest --write-golden"
    families = {metric.key.partition("/")[0] for metric in METRICS}
    assert {match[2] for match in parts.finditer(written)} == {*families, "columns"}


def test_recipes_in_the_docs_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NETZIP_DATA", str(tmp_path))
    written = [b for b in blocks(*PAGES, language="yaml") if re.search(r"^name: ", b.text, re.M)]
    assert len(written) >= 5
    for block in written:
        path = tmp_path / "recipe.yaml"
        path.write_text(block.text)
        with example_files(tmp_path, monkeypatch):
            recipes.load(path, checks=[techniques.check])


def test_fragments_of_recipes_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Blocks that show one section only, put into the smallest recipe."""
    monkeypatch.setenv("NETZIP_DATA", str(tmp_path))
    fragments = [
        b for b in blocks(*PAGES, language="yaml") if not re.search(r"^name: ", b.text, re.M)
    ]
    assert fragments
    for block in fragments:
        whole = {
            "name": "fragment",
            "data": {"name": "digits"},
            "model": {"name": "resnet8"},
            "train": {},
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(whole | yaml.safe_load(block.text)))
        recipes.load(path, checks=[techniques.check])


# links


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        assert place.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(), re.M)
            assert anchor in map(slug, headings), f"{page.name} links to {target}"


# commands


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command of every shell block, one by one, as words."""
    for block in blocks(*PAGES, language="bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                yield f"{block.page}: {line}", words[:end]
                words = words[end + 1 :]


def test_netzip_commands_parse():
    from typer.main import get_command

    from netzip_mlflow.cli import app

    group = get_command(app)
    lines = [(line, words) for line, words in command_lines() if words[0] == "netzip"]
    assert len(lines) > 20
    with group.make_context("netzip", ["list", "models"]) as context:
        for line, words in lines:
            command = group.get_command(context, words[1])  # type: ignore[attr-defined]
            assert command is not None, line
            try:
                command.make_context(words[1], list(words[2:]), parent=context)
            except Exception as error:
                raise AssertionError(f"{line}: {error}") from error


def test_commands_named_in_the_text_exist():
    from typer.main import get_command

    from netzip_mlflow.cli import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    for page in PAGES:
        for words in re.findall(r"`netzip ([^`]*)`", page.read_text()):
            name, *rest = words.split()
            if name == "--help":
                continue
            assert name in known, f"{page.name}: netzip {words}"
            options = {o for p in known[name].params for o in p.opts}
            wanted = {word.partition("=")[0] for word in rest if word.startswith("--")}
            assert wanted <= options, f"{page.name}: netzip {words}"


def test_mlflow_projects_commands_name_what_there_is():
    project = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    lines = [(line, w) for line, w in command_lines() if w[:2] == ["mlflow", "run"]]
    assert lines
    for line, words in lines:
        entry = words[words.index("-e") + 1]
        given = [words[i + 1].partition("=")[0] for i, w in enumerate(words) if w == "-P"]
        assert set(given) <= project[entry]["parameters"].keys(), line


def test_edge_requirements_are_those_of_the_package():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (ROOT / "edge-requirements.txt").read_text().splitlines()
    edge = [line for line in lines if line and not line.startswith("#")]
    full = {line.replace("mlflow-skinny", "mlflow") for line in edge}
    assert full <= set(wanted)
    assert len(edge) == 9


# examples


@contextlib.contextmanager
def example_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files of extending.md in a folder that is the current one, its package installed."""
    written = [block for block in blocks(EXTENDING) if block.file]
    for block in written:
        (folder / block.file).write_text(block.text)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points))
    modules = [Path(b.file).stem for b in written if b.language == "python"]
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        try:
            yield
        finally:
            for name in modules:
                sys.modules.pop(name, None)


OWN = [block.file for block in blocks(EXTENDING, language="yaml")]


def test_every_python_block_compiles():
    for block in blocks(*PAGES, language="python"):
        compile(block.text, block.page, "exec")


@pytest.mark.parametrize("file", OWN)
def test_extending_examples_work(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each example's recipe is checked as the command line does it, then its data, its network
    and its chains are used, up to the files that would ship."""
    import numpy as np

    from netzip_mlflow import data, models, runtimes, tasks
    from netzip_mlflow.deployable import Deployable, Exports
    from netzip_mlflow.runs.baseline import prepare
    from netzip_mlflow.techniques.fp32 import deploy
    from netzip_mlflow.twin import Twin

    with example_files(tmp_path, monkeypatch):
        checks = [data.check, models.check, tasks.check, techniques.check]
        recipe = recipes.load(file, checks=checks)
        task = tasks.open_task(recipe.task, recipe.data, recipe.seed)
        origin = prepare(recipe, task)
        context = techniques.Context.of(
            task, origin, device="cpu", threads=1, exports=Exports(size=8)
        )
        assert recipe.candidates
        for entries in recipe.candidates.values():
            chain = techniques.chain(entries)
            made: Twin | Deployable = origin
            for technique in chain:
                assert isinstance(made, Twin)
                made = technique.apply(made, context)
            shipped = deploy(made, context) if isinstance(made, Twin) else made
            assert len(shipped.manifest["chain"]) == len(chain)
            images, _ = next(task.split("validation").batches(4))
            session = runtimes.find().load(shipped.save(tmp_path / "out"))
            answers = session.run(images)
            task.outputs.require(answers, 4, shipped.manifest["task"])
            assert all(np.isfinite(each).all() for each in answers)


def test_extending_techniques_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    from netzip_mlflow.tasks.classification import Classification
    from netzip_mlflow.twin import Twin

    def weight_of(made: Any) -> torch.Tensor:
        return made.model.get_parameter("1.weight").detach()

    with example_files(tmp_path, monkeypatch):
        data = importlib.import_module("stripes").load(count=300)
        task = Classification.of(data, test=0.3, calibration=32)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 3))
        twin = Twin.of(network, shape=task.shape)
        context = techniques.Context.of(task, twin, device="cpu", threads=1)
        before = twin.digest()
        (rounded,) = techniques.chain([{"shrink:round_weights": {"bits": 3}}])
        assert len(weight_of(rounded.apply(twin, context)).unique()) <= 7
        (clipped,) = techniques.chain([{"clip_weights": {"sigmas": 1.0}}])
        largest = float(weight_of(clipped.apply(twin, context)).abs().max())
        assert largest == pytest.approx(float(weight_of(twin).std()))
        assert twin.digest() == before
        with pytest.raises(recipes.InputError, match=r"0\.5 is not allowed.*from 1\.0 to 10\.0"):
            techniques.chain([{"clip_weights": {"sigmas": 0.5}}])
        assert techniques.names()["clip_weights"] == clipped.traits.summary


def test_readme_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import torch

    (example,) = blocks(ROOT / "README.md", language="python")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)  # the example's network starts from torch's own generator
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(example.text, "README.md", "exec"), scope)  # noqa: S102 (the page's own code)
    frame = scope["frame"].set_index("name")
    assert list(frame.index) == ["baseline", "int8", "sparse-int8"]
    assert frame.loc["baseline", "score/ocs"] == 0
    assert frame.loc["baseline", "accuracy/top1"] > 0.8
    assert frame.loc["int8", "ratio/C"] > 3
    assert "sparse-int8" in capsys.readouterr().out
    assert {"radar.png", "accuracy_latency.png"} <= {p.name for p in Path("pictures").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("file", OWN)
def test_extending_commands_run(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The commands as printed, in a process of their own."""
    with example_files(tmp_path, monkeypatch):
        words = [sys.executable, "-m", "netzip_mlflow", "compress", file, "--quiet"]
        path = f"{tmp_path}:{ROOT}"
        monkeypatch.setenv("PYTHONPATH", path)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for name in yaml.safe_load(Path(file).read_text())["candidates"]:
            assert name in done.stdout
