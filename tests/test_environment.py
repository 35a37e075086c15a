"""The lists of dependencies agree with each other and with the code; the scripts find or make an environment."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"torch": "pytorch"}
IMPORT_NAMES = {"scikit-learn": "sklearn"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def split_requirement(requirement):
    """`torch>=2.6,<2.14` as ("torch", {">=2.6", "<2.14"})."""
    name, bounds = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[.*\])?(.*)", requirement.replace(" ", "")).groups()
    return name, frozenset(bound for bound in bounds.split(",") if bound)


def pyproject_requirements():
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    return dict(split_requirement(line) for line in lines if not line.startswith(PROJECT["name"] + "["))


def conda_requirements(text):
    """The entries of environment.yml that are conda's: two spaces deep, pip's own section left out."""
    entries = re.findall(r"^  - ([^\s:#]+)$", text.partition("dependencies:")[2], flags=re.MULTILINE)
    return {name: bounds for name, bounds in map(split_requirement, entries) if name != "pip"}


def disagreements(pyproject, conda):
    wanted = {CONDA_NAMES.get(name, name): bounds for name, bounds in pyproject.items()}
    wanted["python"] = split_requirement("python" + PROJECT["requires-python"])[1]
    return {name for name in {*wanted, *conda} if wanted.get(name) != conda.get(name)}


def test_conda_and_pip_agree():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert disagreements(pyproject_requirements(), conda_requirements(text)) == set()
    for change, name in ((("pytorch>=2.6", "pytorch>=2.5"), "pytorch"), (("  - fire>=0.7,<0.8\n", ""), "fire"),
                         (("  - pip\n", "  - pip\n  - more>=1,<2\n"), "more")):
        assert change[0] in text
        assert disagreements(pyproject_requirements(), conda_requirements(text.replace(*change))) == {name}


def test_every_requirement_is_bounded_on_both_sides():
    for name, bounds in pyproject_requirements().items():
        assert sorted(re.match("[<>=]+", bound).group() for bound in bounds) == ["<", ">="], name


def imports(folder):
    """Top-level names that the folder's files import."""
    found = set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.split(".")[0])
    return found


def test_what_is_imported_is_declared_and_what_is_declared_is_used():
    folders = [ROOT / name for name in ("imdb_scripts", "analysis", "sweeps", "tests")]
    own = {"ulmfit", "analysis", "launching", *(path.stem for folder in folders for path in folder.glob("*.py"))}
    used = set().union(*map(imports, folders))
    declared = {IMPORT_NAMES.get(name, name) for name in pyproject_requirements()}
    assert used - declared - own - set(sys.stdlib_module_names) == set()
    # tests/run.sh tells pytest to use it.
    assert declared - used == {"pytest-xdist"} and "pytest -n" in (ROOT / "tests/run.sh").read_text(encoding="utf-8")


def test_the_packages_that_are_installed_are_all_there_are():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    places = {".".join((name, *path.parent.relative_to(ROOT / setuptools["package-dir"][name]).parts))
              for name in ("ulmfit", "analysis") for path in (ROOT / setuptools["package-dir"][name]).rglob("*.py")}
    assert places == set(setuptools["packages"])


# -- sweeps/environment.sh ---------------------------------------------------------------------------------------------

# Stands for a Python: answers what the script asks of one, notes what pip was told, fails where told to.
FAKE = """#!/bin/bash
case "$1 $2" in
    "- "*) exit 1 ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") shift 3; echo "$*" >>"$FAKE_LOG"; exit "${FAKE_PIP_STATUS:-0}" ;;
    "-c "*|"--version "*) echo "Python 3.11.9" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "a check out"
    (root / "sweeps").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copy(ROOT / "sweeps" / "environment.sh", root / "sweeps")
    (tmp_path / "bin").mkdir()
    for name in ("bash", "cat", "cp", "cut", "dirname", "env", "flock", "mkdir", "paste", "rm", "sha256sum"):
        if shutil.which(name):
            (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    return root


def choose(checkout, path, extra="train", **environment):
    """Sources the script from another folder; returns the completed process, whose last line is PYTHON."""
    code = 'set -euo pipefail; source "$1/sweeps/environment.sh"; choose_python "$2"; echo "$PYTHON"'
    clean = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    return subprocess.run(["bash", "-c", code, "bash", str(checkout), extra], cwd="/", capture_output=True, text=True,
                          env={**clean, "PATH": str(path), "FAKE_LOG": str(checkout / "log"), **environment})


def installations(checkout):
    log = checkout / "log"
    return log.read_text().splitlines() if log.exists() else []


def put_fake(checkout, name="python3.12"):
    path = checkout.parent / "bin" / name
    path.write_text(FAKE)
    path.chmod(0o755)


def test_an_environment_that_has_everything_is_used(checkout):
    folder = Path(sys.executable).parent
    done = choose(checkout, f"{folder}:{os.environ['PATH']}", "test")
    assert done.returncode == 0 and Path(done.stdout.strip()).parent == folder, done.stderr
    assert not (checkout / ".venv").exists()


def test_one_that_lacks_something_is_not(checkout):
    put_fake(checkout)
    (checkout.parent / "bin" / "python").write_text(f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    (checkout.parent / "bin" / "python").chmod(0o755)
    pyproject = checkout / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("fire>=0.7,<0.8", "fire>=99,<100"))
    done = choose(checkout, checkout.parent / "bin", VIRTUAL_ENV="/somewhere")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == str(checkout / ".venv" / "bin" / "python")
    assert "the active environment lacks fire" in done.stdout


def test_the_environment_is_made_once_and_again_when_the_list_changes(checkout):
    put_fake(checkout)
    path = checkout.parent / "bin"
    for extra in ("train", "train", "test", "test", "train"):  # what the tests need holds what training needs
        done = choose(checkout, path, extra)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == str(checkout / ".venv" / "bin" / "python")
    assert installations(checkout) == ["-e .[train]", "-e .[test]"]
    with open(checkout / "pyproject.toml", "a") as file:
        file.write("# changed\n")
    assert choose(checkout, path).returncode == 0
    assert installations(checkout)[2:] == ["-e .[train]"]


def test_an_interrupted_installation_is_done_anew(checkout):
    put_fake(checkout)
    path = checkout.parent / "bin"
    done = choose(checkout, path, FAKE_PIP_STATUS="1")
    assert done.returncode == 1 and done.stderr.startswith("error: the installation failed")
    (checkout / ".venv" / "half").touch()
    assert choose(checkout, path).returncode == 0
    assert not (checkout / ".venv" / "half").exists() and len(installations(checkout)) == 2


def test_an_environment_of_the_users_own_is_left_alone(checkout):
    put_fake(checkout)
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "mine").touch()
    done = choose(checkout, checkout.parent / "bin")
    assert done.returncode == 1 and "was not made by this script" in done.stderr
    assert (checkout / ".venv" / "mine").exists() and not installations(checkout)


def test_without_python_one_line_says_so(checkout):
    (checkout.parent / "bin" / "python3.13").write_text("#!/bin/bash\nexit 127\n")  # a version manager's stub
    (checkout.parent / "bin" / "python3.13").chmod(0o755)
    done = choose(checkout, checkout.parent / "bin")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "no Python 3.11 or later" in done.stderr


def test_the_demo_prints_its_plan_from_any_folder():
    demo = ROOT / "sweeps" / "demo.sh"
    done = subprocess.run(["bash", str(demo), "--print"], cwd="/", capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and all(line.startswith("python ") for line in lines)
    for script in re.findall(r"python (imdb_scripts/\w+\.py)", done.stdout):
        assert (ROOT / script).is_file(), script
    assert sum("--backwards" in line for line in lines) == 3 and "-m analysis ensemble" in lines[-2]
    assert subprocess.run(["bash", str(demo), "--prnt"], capture_output=True).returncode == 2
