"""The package's floors: arrows run down alone, and what a floor imports is what its extra brings."""

import ast
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from editions import ROOT, project
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = ROOT / "rvq_tutorial"
FLOORS = ["ground", "autoencoder", "codec", "course"]  # each may use those before it
EXTRAS = {"ground": None, "autoencoder": "codec", "codec": "codec", "course": "course"}

FIRST_USE = """
import torch
from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer

torch.manual_seed(0)
x = torch.randn(500, 4)
for quantizer in (VectorQuantizer(4, 16), ResidualVectorQuantizer(4, 16, num_quantizers=3)):
    quantizer.fit(x)
    output = quantizer(x.requires_grad_())
    (output.quantized.square().mean() + output.loss).backward()
    quantizer.eval()
    rebuilt = quantizer.decode(quantizer.encode(x))
    assert torch.equal(rebuilt, quantizer(x).quantized)
    assert (x - rebuilt).square().mean() < 0.5 * x.square().mean()
"""
ITS_PAPERS = """
import importlib.metadata, pathlib, rvq_tutorial
assert importlib.metadata.version("rvq-tutorial") == rvq_tutorial.__version__
assert (pathlib.Path(rvq_tutorial.__file__).parent / "py.typed").exists()
"""
ABOVE = """
import importlib
for floor in ("autoencoder", "codec", "course"):
    try:
        importlib.import_module(f"rvq_tutorial.{floor}")
    except ModuleNotFoundError as error:
        print(error)
"""
COMPRESSED = """
import importlib.util, torch
from rvq_tutorial.autoencoder import pretrained
from rvq_tutorial.codec import Codec

ramp = torch.linspace(0, 1, 48)
image = torch.stack([ramp.outer(ramp), ramp.expand(48, 48), 1 - ramp.outer(ramp).sqrt()])
codec = Codec(*pretrained.load())
file = codec.compress(image, max_bytes=100)
assert torch.equal(codec.decode(codec.indices(file), 48, 48), codec.decompress(file))
print(importlib.util.find_spec("constriction") is not None, file.hex())
"""
SAID = """\
rvq_tutorial.autoencoder needs safetensors, tqdm, not installed here: pip install 'rvq-tutorial[codec]'
rvq_tutorial.codec needs PIL, not installed here: pip install 'rvq-tutorial[codec]'
rvq_tutorial.course needs babel, IPython, ipywidgets, matplotlib, scipy, skimage, sklearn, torchvision, \
not installed here: pip install 'rvq-tutorial[course]'
"""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a module imports anywhere in it: of ours the modules themselves, of others the package."""
    ours = modules()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: every import names its module in full"
            longer = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in ours else node.module for name in longer]
        else:
            continue
        yield from (name if name in ours else name.partition(".")[0] for name in names)


def floor(module: str) -> str:
    """The floor on which a module of ours lies."""
    folder = module.removeprefix("rvq_tutorial").removeprefix(".").partition(".")[0]
    return folder if folder in FLOORS else "ground"


def brought(extra: str | None) -> set[str]:
    """The distributions that the package depends on with that extra."""
    wanted = [*project()["dependencies"], *project()["optional-dependencies"].get(extra, [])]
    found = {canonicalize_name(Requirement(each).name) for each in wanted}
    for each in map(Requirement, wanted):
        for inner in each.extras if each.name == project()["name"] else ():
            found |= brought(inner)
    return found


def test_every_module_lies_on_a_floor() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(FLOORS) - {"ground"}
    assert {floor(name) for name in modules()} == set(FLOORS)


@pytest.mark.parametrize("name", modules())
def test_a_module_imports_from_its_own_floor_and_from_those_below(name: str) -> None:
    used = {module: floor(module) for module in imports(modules()[name]) if module in modules()}
    above = FLOORS[FLOORS.index(floor(name)) + 1 :]
    assert not {module for module, where in used.items() if where in above}


def test_no_imports_run_in_a_circle() -> None:
    graph = {name: {module for module in imports(path) if module in modules()} for name, path in modules().items()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", FLOORS)
def test_a_floor_imports_what_its_extra_brings(name: str) -> None:
    found = {module for own, path in modules().items() if floor(own) == name for module in imports(path)}
    others = found - set(modules()) - set(sys.stdlib_module_names)
    provided = {
        file.parts[0].removesuffix(".py")
        for distribution in importlib.metadata.distributions()
        if canonicalize_name(distribution.metadata["Name"]) in brought(EXTRAS[name])
        for file in distribution.files or []
    }
    assert not others - provided


def test_importing_the_package_imports_torch_and_itself_alone() -> None:
    script = (
        "import sys, numpy, torch; before = set(sys.modules); import rvq_tutorial; print(*set(sys.modules) - before)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    added = {name.partition(".")[0] for name in run.stdout.split()} - set(sys.stdlib_module_names)
    assert added <= {"rvq_tutorial", "torch", "numpy"}
    assert not {name for name in run.stdout.split() if floor(name) != "ground"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with torch, numpy, what they need, and the package's wheel: nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = next(path for path in (folder / "env").glob("*/python*") if path.stem == "python")
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", query], capture_output=True, text=True, check=True).stdout.strip())
    link(site, "torch", "numpy")
    # pip looks nowhere else: a dependency that is not there yet would fail the installation.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    install = ["--python", python, "install", "--no-index", *folder.glob("*.whl")]
    subprocess.run([*pip, *install], env=alone | {"PIP_CONFIG_FILE": os.devnull}, check=True)
    return python


def link(folder: Path, *names: str) -> None:
    """Put these installed distributions, and what they need, into the folder."""
    for distribution in with_what_they_need(*names):
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))


def with_what_they_need(*names: str) -> list[importlib.metadata.Distribution]:
    """The installed distributions of these names and, all the way down, of what they depend on."""
    found: dict[str, importlib.metadata.Distribution] = {}
    wanted, seen = [Requirement(name) for name in names], set()
    while wanted:
        each = wanted.pop()
        if str(each) not in seen:
            seen.add(str(each))
            found[each.name] = importlib.metadata.distribution(each.name)
            needed = map(Requirement, found[each.name].requires or [])
            extras = ["", *each.extras]
            wanted += [inner for inner in needed if not inner.marker or _holds(inner.marker, extras)]
    return list(found.values())


def _holds(marker: Marker, extras: list[str]) -> bool:
    return any(marker.evaluate({"extra": extra}) for extra in extras)


@pytest.mark.parametrize(("script", "said"), [(FIRST_USE, ""), (ITS_PAPERS, ""), (ABOVE, SAID)])
def test_the_wheel_alone_with_torch_and_numpy(bare: Path, script: str, said: str) -> None:
    run = subprocess.run([bare, "-I", "-c", script], cwd=bare.parent, capture_output=True, text=True)
    assert not run.returncode, run.stderr
    assert run.stdout == said


def test_where_constriction_has_no_wheel_files_are_the_same(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link(tmp_path, "pillow", "safetensors", "tqdm")
    exec(COMPRESSED, {})
    found, file = capsys.readouterr().out.split()
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    without = subprocess.run([bare, "-c", COMPRESSED], env=environment, capture_output=True, text=True)
    assert not without.returncode, without.stderr
    assert (found, without.stdout.split()) == ("True", ["False", file])


def test_the_wheel_brings_every_file_of_the_package(bare: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "rvq_tutorial"], cwd=ROOT, capture_output=True, text=True, check=True)
    script = "import importlib.metadata; print(*importlib.metadata.files('rvq-tutorial'), sep='\\n')"
    brought = subprocess.run([bare, "-I", "-c", script], cwd=bare.parent, capture_output=True, text=True, check=True)
    assert set(tracked.stdout.split()) - set(brought.stdout.split()) == set()
