"""Hostile inputs by the hundred, each the same for one seed: what a command is given, and where.

`inputs(count, seed)` goes round the kinds; `hostile_runs.py` runs them through the command line.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["KINDS", "Input", "inputs"]

GOOD = {
    "name": "stripes",
    "data": {"name": "npz", "path": "stripes.npz", "calibration": 32},
    "model": {"factory": "tiny_networks:tiny", "arguments": {"width": 4}},
    "train": {"epochs": 1, "lr": 0.1, "batch": 32, "precision": "float32", "threads": 1},
    "candidates": {"half": [{"half": {}}], "cut": [{"prune_l1": {"ratio": 0.5}}, {"ptq": {}}]},
    "measure": {"latency": {"target": 0.5, "max_seconds": 0.2, "min_rounds": 5}, "throughput": []},
    "score": {"max_drop_points": 100},
}


@dataclass(frozen=True)
class Input:
    """A command in a folder of its own.

    Attributes:
        files: what is written there before, by name; `stripes.npz`, `good.onnx`, `mlflow.db` and
            a filled `cache` are there already where `needs` names them.
        folder: the folder's name.
        damage: changes of a file that is there: how, and a seed.
    """

    kind: str
    number: int
    arguments: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "work"
    needs: tuple[str, ...] = ()
    damage: tuple[str, str, int] = ("", "", 0)


Rng = random.Random
TEXTS = (
    *("", " ", "\t", "\n", "\r\n", "~", "null", "=", "-", "--", "-1", "0", "1e999", "-0.0", ".nan"),
    *("inf", "nan", "true", "yes", "1_000", "0x1f", "١٢", "²", "½", "9" * 30, "9" * 5000),
    *(
        "2020-01-01",
        "12:30:45",
        "a.b.c",
        "a/b",
        "../..",
        "/",
        "//",
        ".",
        "..",
        "~nobody/x",
        "C:\\x",
    ),
    *("%", "%s", "%00", "{}", "{0}", "${HOME}", "${NOT_SET}", "${", "$(id)", "`id`", "; id", "|"),
    *("'", '"', "\\", "\\n", "\u202e", "\ufeff", "é", "★", "😀", "\u0301", "\x1b[31m", "\x07"),
    *("a" * 260, "b" * 5000, "c/" * 300, "[" * 100, "{" * 100, "&a *a", "!!set {a}", "!x y"),
    *("module:function", "os:system", "os:nothing", "nowhere:f", "json:dumps", ":", "a:", ":b"),
    *("models:/x", "models:/x/1", "models:/x@y", "runs:/", "runs:/0", "http://", "file:///etc"),
    *("<script>", "=1+1", "@SUM(1)", "NULL", "None", "__class__", "baseline", "trial-0", "plots"),
)
NUMBERS = (
    *(0, -1, 1, 2, 10**9, 2**31, 2**63, -(2**63), 10**30, 10**249, 0.0, -0.0, 0.5, 1.5, -0.5),
    *(1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
)


def text(rng: Rng) -> str:
    """A text that something may stumble over."""
    if rng.random() < 0.7:
        return rng.choice(TEXTS)
    alphabet = rng.choice([string.printable, string.ascii_letters, "{}[]:,&*!|>'\"%@`#-? \n\ta"])
    return "".join(rng.choices(alphabet, k=rng.randint(1, 40)))


def value(rng: Rng, depth: int = 0) -> object:
    """Any value that YAML can write."""
    draw = rng.random()
    if draw < 0.35 or depth > 3:
        return text(rng)
    if draw < 0.6:
        return rng.choice(NUMBERS)
    if draw < 0.7:
        return rng.choice([None, True, False])
    if draw < 0.85:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {text(rng): value(rng, depth + 1) for _ in range(rng.randint(0, 3))}


def places(node: object, path: tuple = ()) -> list[tuple]:
    """The path of every value below a nested one."""
    inner = node.items() if isinstance(node, dict) else enumerate(node)  # type: ignore[arg-type]
    found = []
    for key, part in inner:
        found.append((*path, key))
        if isinstance(part, dict | list):
            found += places(part, (*path, key))
    return found


def ruined(rng: Rng) -> dict:
    """The good recipe with some of its values, keys or sections changed."""
    made = json.loads(json.dumps(GOOD))
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(places(made))
        parent = made
        for key in path[:-1]:
            parent = parent[key]
        how = rng.random()
        if how < 0.15 and isinstance(parent, dict):
            del parent[path[-1]]
        elif how < 0.3 and isinstance(parent, dict):
            parent[text(rng)] = parent.pop(path[-1])
        else:
            parent[path[-1]] = value(rng)
    return made


RAW = (
    *("!!set {a}", "!!binary aGk=", "!!timestamp x", "!!int x", "!!float x", "!!bool x", "!own y"),
    *(
        "!!python/object/apply:os.getcwd []",
        "!!pairs [a: b]",
        "!!omap [a: b]",
        "2020-01-01",
        "12:30",
    ),
    *("&x [*x]", "&x {a: *x}", "*nothing", "{<<: 1}", "{<<: [1]}", "{[1]: 2}", "{1: a, '1': b}"),
    *("9" * 5000, "0x" + "f" * 5000, "1" + ":1" * 5000, "1e999", "-.inf", ".nan", "=", "~", "? a"),
    *("[" * 5000, "[" * 800 + "]" * 800, "{a: " * 800 + "1" + "}" * 800, '"\\ud800"', '"\\0"'),
    *("@", "`", "%", "|", ">", "- a", "a: b", "'", '"', "# a", "a #b", "[a, ]", "[,]", "{,}", "\t"),
)


def spliced(rng: Rng) -> bytes:
    """The good recipe with one value written by hand, as YAML understands it."""
    lines = dumped(GOOD).decode().splitlines()
    at = rng.randrange(len(lines))
    lines[at] = f"{lines[at].partition(':')[0]}: {rng.choice(RAW)}"
    return "\n".join(lines).encode()


def dumped(made: object) -> bytes:
    """As YAML; what UTF-8 cannot write is written as it stands in memory."""
    import yaml

    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True).encode("utf-8", "replace")


def bent(rng: Rng, content: bytes) -> bytes:
    """Bytes cut, flipped, doubled or sprinkled with what a parser minds."""
    made = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        how, at = rng.random(), rng.randrange(len(made) + 1)
        if how < 0.25:
            del made[at:]
        elif how < 0.5 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif how < 0.75:
            made[at:at] = text(rng).encode()
        else:
            end = min(len(made), at + rng.randint(1, 60))
            made[at:at] = made[at:end] * rng.choice([1, 2, 200])
    return bytes(made)


def laughs(rng: Rng) -> bytes:
    """A few aliases that stand for more than any memory holds."""
    width, depth = rng.randint(2, 12), rng.randint(8, 60)
    lines = [f"k0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
    return "\n".join(lines).encode()


def recipe(rng: Rng, number: int) -> Input:
    how = rng.random()
    if how < 0.4:
        content = dumped(ruined(rng))
    elif how < 0.65:
        content = spliced(rng)
    elif how < 0.85:
        content = bent(rng, dumped(GOOD))
    elif how < 0.93:
        content = rng.choice(
            [b"", b"\xff\xfe", b"\0", b"---\n---", b"- a", b"5", b"%YAML 3.0\n--- a", b"#" * 2**20]
        )
    else:
        content = laughs(rng)
    command = rng.choice([("validate",), ("compress", "--dry-run", "--json"), ("compress",)])
    return Input(
        "recipe", number, (*command, "r.yaml"), {"r.yaml": content}, needs=("stripes.npz",)
    )


def override(rng: Rng, number: int) -> Input:
    given = []
    for _ in range(rng.randint(1, 3)):
        path = ".".join(map(str, rng.choice(places(GOOD))))
        path = rng.choice([path, path, path, f"{path}.{text(rng)}", text(rng), "a." * 3000 + "a"])
        written = value(rng)
        if rng.random() < 0.5:
            written = rng.choice([dumped(written).decode().strip(), text(rng), rng.choice(RAW)])
        given += ["--set", f"{path}={written}".replace("\0", "")]
    command = rng.choice([("validate",), ("compress", "--dry-run", "--json"), ("train", "--json")])
    content = {"r.yaml": dumped(GOOD)}
    if command[0] == "train":  # what is right would train: something is wrong for certain
        given += ["--set", "model.arguments.nothing=1"]
    return Input("--set", number, (*command, "r.yaml", *given), content, needs=("stripes.npz",))


CELLS = (
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "0",
    "",
    "=1+1",
    "1,5",
    "0x1",
    "１",
    "a" * 200_000,
    '"',
)


def table(rng: Rng, number: int) -> Input:
    header = ["technique", "top1", "chats_g", "disk_mb", "latency_ms", "energy_j", "power_w"]
    header = header[: rng.randint(3, 7)]
    rows = [
        [f"row{i}", *(f"{rng.uniform(0.1, 1):.3f}" for _ in header[1:])]
        for i in range(rng.randint(0, 4))
    ]
    cells = [header, *rows]
    for _ in range(rng.randint(0, 4)):
        line = rng.choice(cells)
        line[rng.randrange(len(line))] = rng.choice([*CELLS, text(rng)])
    content = "\n".join(",".join(line) for line in cells).encode("utf-8", "replace")
    content = bent(rng, content) if rng.random() < 0.4 else content
    options: list[str] = []
    for name in (
        "--speed",
        "--size",
        "--weights",
        "--zeta",
        "--column",
        "--baseline",
        "--accuracy",
    ):
        if rng.random() < 0.1:
            good = {"--weights": "P=1,S=nan", "--zeta": "1e308", "--column": "top1=top1"}
            options += [name, rng.choice([text(rng), good.get(name, "latency")]).replace("\0", "")]
    log = ("--log",) if rng.random() < 0.3 else ()
    arguments = ("score", "t.csv", "--json", *log, *options)
    return Input("CSV", number, arguments, {"t.csv": content}, needs=("mlflow.db",))


DAMAGES = (
    *("cut", "flip", "noise", "dims", "negative dims", "zero dims", "no dims", "foreign op"),
    *("no initialisers", "wrong type", "opset", "ir version", "external data", "raw data"),
    *("cycle", "doubled", "no outputs", "no inputs", "two inputs", "names", "huge constant"),
    *("strings", "attributes", "empty", "text", "sparse", "functions", "deep"),
)


def network(rng: Rng, number: int) -> Input:
    command = rng.choice(
        [
            ("measure", "bad.onnx", "--baseline", "good.onnx", "--no-log", "--recipe", "r.yaml"),
            ("measure", "bad.onnx", "--baseline", "good.onnx", "--recipe", "r.yaml"),
            ("measure", "good.onnx", "--baseline", "bad.onnx", "--no-log", "--recipe", "r.yaml"),
            ("export", "bad.onnx", "out", "--opset", "18"),
            ("export", "bad.onnx", "out"),
        ]
    )
    command += ("--json",) if command[0] == "measure" else ()
    return Input(
        "ONNX",
        number,
        command,
        {"r.yaml": dumped(GOOD)},
        needs=("good.onnx", "stripes.npz", "mlflow.db"),
        damage=("bad.onnx", rng.choice(DAMAGES), rng.randrange(2**32)),
    )


COMMANDS = {
    "compress": ("--recipe", "--set", "--only", "--experiment", "--seed", "--threads"),
    "train": ("--recipe", "--set", "--experiment", "--seed", "--threads"),
    "search": ("--trials", "--timeout", "--max-drop-points", "--workers", "--engine", "--study"),
    "measure": ("--model", "--baseline", "--recipe", "--runtime", "--layout", "--mean", "--scale"),
    "compare": ("--runs", "--filter", "--experiment"),
    "score": ("--baseline", "--accuracy", "--speed", "--size", "--weights", "--zeta", "--column"),
    "validate": ("--recipe", "--set"),
    "list": (),
    "init": (),
    "export": ("--opset",),
    "doctor": (),
}
VARIABLES = ("NETZIP_CACHE_MAX_BYTES", "NETZIP_CACHE", "XDG_CACHE_HOME", "COLUMNS", "TMPDIR")


def arguments(rng: Rng, number: int) -> Input:
    command = rng.choice([*COMMANDS, text(rng)])
    given: list[str] = [command]
    dry = {"compress", "train", "search"} & {command}
    given += ["--dry-run"] if dry and rng.random() < 0.5 else []
    if dry and "--dry-run" not in given:  # what is right would run for long
        given += ["--set", "model.arguments.nothing=1"]
    given += ["r.yaml"] if dry or rng.random() < 0.3 else []
    for _ in range(rng.randint(0, 3)):
        options = [*COMMANDS.get(command, ()), "--json", "--quiet", f"--{text(rng)}"]
        option = rng.choice(options)
        given += [option] if option in ("--json", "--quiet") else [option, text(rng)]
    given += [text(rng) for _ in range(rng.randint(0, 2))]
    environment = {}
    if rng.random() < 0.3:
        environment[rng.choice(VARIABLES)] = text(rng).replace("\0", "")
    clean = tuple(word.replace("\0", "") for word in given)
    files = {"r.yaml": dumped(GOOD)}
    return Input("arguments", number, clean, files, environment, needs=("stripes.npz", "mlflow.db"))


def cache(rng: Rng, number: int) -> Input:
    how = rng.choice(
        ["cut", "flip", "noise", "empty", "folder", "missing", "link", "json", "swapped", "deep"]
    )
    file = rng.choice(["entry.json", "twin.json", "twin.safetensors", "", "*"])
    return Input(
        "cache",
        number,
        ("compress", "r.yaml", "--only", "cut", "--json", "--quiet"),
        {"r.yaml": dumped(GOOD)},
        {"NETZIP_CACHE": "cache", "NETZIP_CACHE_MAX_BYTES": "100000000"},
        needs=("stripes.npz", "ran", "cache"),
        damage=(file, how, rng.randrange(2**32)),
    )


def name(rng: Rng, number: int) -> Input:
    odd = text(rng)
    made = json.loads(json.dumps(GOOD))
    more: list[str] = []
    where = rng.randrange(8)
    if where == 0:
        made["name"] = odd
    elif where == 1:
        made["candidates"] = {odd: [{"half": {}}], text(rng): [{"ptq": {}}]}
    elif where == 2:
        made["candidates"]["own"] = [{rng.choice([odd, f"own_code:{odd}", f"{odd}:f"]): {}}]
    elif where == 3:
        made["candidates"]["own"] = [{"own_code:f": {odd: value(rng)}}]
    elif where == 4:
        made["model"]["arguments"] = {odd: value(rng)}
    elif where == 5:
        made["data"] = {"factory": "own_code:data", "arguments": {odd: value(rng)}}
    elif where == 6:
        made["model"]["weights"] = odd
    else:
        more = ["--only", odd.replace("\0", "")]
    command = rng.choice([("validate",), ("compress", "--dry-run", "--json")])
    command = ("compress", "--dry-run", *more) if more else command
    files = {
        "r.yaml": dumped(made),
        "own_code.py": OWN.format("return twin").encode(),
    }
    return Input("names", number, (*command, "r.yaml"), files, needs=("stripes.npz",))


def identifier(rng: Rng, number: int) -> Input:
    odd = rng.choice([text(rng), "0" * 32, "f" * 32, f"{rng.randrange(10**9)}"]).replace("\0", "")
    command = rng.choice(
        [
            ("compare", odd, "--json"),
            ("compare", "--runs", f"{odd},{text(rng)}".replace("\0", ""), "--json"),
            ("compare", "--filter", odd, "--json"),
            ("compare", "--experiment", odd, "--json"),
            ("export", f"runs:/{odd}", "out"),
            ("export", f"models:/{odd}", "out"),
            ("measure", f"runs:/{odd}", "--json"),
            ("measure", f"models:/{odd}", "--baseline", f"runs:/{odd}", "--json"),
            ("train", "r.yaml", "--json", "--set", f"model={{uri: 'models:/{odd}'}}"),
            ("train", "r.yaml", "--json", "--set", "model.arguments.x=1", "--experiment", odd),
        ]
    )
    needs = ("stripes.npz", "mlflow.db")
    return Input("ids", number, command, {"r.yaml": dumped(GOOD)}, needs=needs)


FOLDERS = (
    *("a?b", "a%20b", "%", "a#b", "a b", " a", "a\nb", "a\tb", "é★", "a:b", "a;b", "a&b=c", "[a]*"),
    *("-a", "--json", "a\\b", 'a"b', "~", "$HOME", "${X}", "a@b", "x" * 200, "%2e%2e", "😀", "a'b"),
)


def folder(rng: Rng, number: int) -> Input:
    odd, below = rng.choice(FOLDERS), rng.choice(FOLDERS)
    csv = b"technique,top1,chats_g,disk_mb\na,0.9,1,1\nb,0.8,0.5,0.5\n"
    command = rng.choice(
        [
            ("score", "t.csv", "--log", "--json"),
            ("validate", f"./{below}/r.yaml"),
            ("compress", f"./{below}/r.yaml", "--dry-run", "--json"),
            ("init", f"./{below}/r.yaml"),
            ("export", "good.onnx", f"./{below}"),
            ("validate", "r.yaml", "--set", f"data.path='{below.replace(chr(39), chr(39) * 2)}'"),
            ("compare", "--json"),
        ]
    )
    written = f"{below}/r.yaml" if command[0] in ("validate", "compress") else "r.yaml"
    files = {"t.csv": csv, written: dumped(GOOD), "r.yaml": dumped(GOOD)}
    return Input(
        "folders",
        number,
        command,
        files,
        {"MLFLOW_TRACKING_URI": ""},
        folder=odd,
        needs=("stripes.npz", "mlflow.db", "good.onnx"),
    )


CODE = (
    *("print('loud')", "import os\nos.write(1, b'loud')", "import os\nos.system('echo loud')"),
    *(
        "raise SystemExit(0)",
        "raise SystemExit('x')",
        "1 / 0",
        "def f(:",
        "\0",
        "import nowhere_at_all",
    ),
    *(
        "f = net = data = 5",
        "f = net = data = print",
        "f = net = data = object",
        "raise MemoryError",
    ),
    *("def __getattr__(name):\n    raise RuntimeError(name)", "import sys\nsys.stdout = None"),
    *(
        "import sys\nsys.setrecursionlimit(50)",
        "import own_code",
        "from own_code import f",
        "x" * 9,
    ),
)
OWN = (
    "def f(twin, context, **any):\n    {0}\n\n"
    "def net(**any):\n    {0}\n\n"
    "def data(**any):\n    {0}\n"
)
BODIES = (
    *("return None", "raise ValueError('x')", "raise SystemExit(0)", "return {}", "return any"),
    *("print('loud')", "import numpy\n    return {'x_train': numpy.zeros(3), 'y_train': [1]}"),
    *("from numpy import *\n    return {'x_train': full((9, 2, 2, 3), nan), 'y_train': [0] * 9}",),
    *("import torch\n    return torch.nn.Identity()", "return [f, net, data]", "raise MemoryError"),
    *(
        "import torch\n    return torch.nn.Linear(1, 1)",
        "f()",
        "return f(1, 2)",
        "return 'é' * 10**6",
    ),
)


def code(rng: Rng, number: int) -> Input:
    made = json.loads(json.dumps(GOOD))
    where = rng.choice(["model", "data", "candidates"])
    if where == "candidates":
        made["candidates"]["own"] = [{"own_code:f": {}}]
    else:
        name = {"model": "net", "data": "data"}[where]
        made[where] = {"factory": f"own_code:{name}", "arguments": {text(rng): value(rng)}}
    body = rng.choice(CODE) if rng.random() < 0.5 else OWN.format(rng.choice(BODIES))
    shadow = rng.choice(["random", "types", "json", "torch", "numpy", "own_code"])
    files = {f"{shadow}.py": body.encode(), "own_code.py": body.encode(), "r.yaml": dumped(made)}
    command = rng.choice([("validate",), ("compress", "--dry-run", "--json"), ("train", "--json")])
    wrong = ("--set", "model.arguments.nothing=1") if where == "candidates" else ()
    return Input("code", number, (*command, "r.yaml", *wrong), files, needs=("stripes.npz",))


KINDS: dict[str, Callable[[Rng, int], Input]] = {
    "recipe": recipe,
    "--set": override,
    "CSV": table,
    "ONNX": network,
    "arguments": arguments,
    "cache": cache,
    "names": name,
    "ids": identifier,
    "code": code,
    "folders": folder,
}


def inputs(count: int, seed: int) -> Iterator[Input]:
    """So many inputs, going round the kinds; one number gives the same input for one seed."""
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        yield KINDS[kind](random.Random(f"{seed} {number}"), number)
