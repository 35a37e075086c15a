# Sourced by the scripts that need Python. `choose_python train` (or test) exports PYTHON: the active environment's when
# it has what that extra of pyproject.toml asks for, else that of .venv in the project's root, made on first use.

_PROJECT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Prints the requirements of an extra that PYTHON lacks, one a line; fails when there are any.
_lacks() { # PYTHON EXTRA
    "$1" - "$_PROJECT_ROOT/pyproject.toml" "$2" <<'PYTHON_CODE' 2>/dev/null
import sys

if sys.version_info < (3, 11):
    print("python>=3.11")
    sys.exit(1)
import tomllib
from importlib import metadata

try:
    from packaging.requirements import Requirement
except ImportError:  # fastai and pytest bring it, so something is missing
    print("packaging")
    sys.exit(1)

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
waiting, seen, lacking = [*project["dependencies"], f"{project['name']}[{sys.argv[2]}]"], set(), []
while waiting:
    wanted = Requirement(waiting.pop(0))
    if wanted.name == project["name"]:
        for extra in wanted.extras - seen:
            seen.add(extra)
            waiting += project["optional-dependencies"][extra]
        continue
    try:
        found = wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        found = False
    if not found:
        lacking.append(str(wanted))
print("\n".join(lacking))
sys.exit(bool(lacking))
PYTHON_CODE
}

# Prints the first Python of at least 3.11 that runs and can make an environment.
_base_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        # Being on PATH is not enough: a version manager's stub may stand for a Python that is not switched on.
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11 or later with the modules venv and ensurepip was found (on Debian and Ubuntu:" \
        "apt-get install python3 python3-venv); or activate an environment that has what pyproject.toml lists" >&2
    return 1
}

_make_venv() { # EXTRA
    local extra=$1 venv=$_PROJECT_ROOT/.venv stamp=$_PROJECT_ROOT/.venv/ulmfit-ablations.stamp sum="" base done_with=""
    sum=$(sha256sum <"$_PROJECT_ROOT/pyproject.toml" | cut -c1-16)
    [ -f "$stamp" ] && done_with=$(cat "$stamp")
    # An environment made for the tests holds what training needs.
    if [ -x "$venv/bin/python" ] && { [ "$done_with" = "$sum $extra" ] || [ "$done_with" = "$sum test" ]; }; then
        return
    fi
    if [ -e "$venv" ] && [ ! -f "$stamp" ]; then
        echo "error: $venv lacks what pyproject.toml lists and was not made by this script; activate it and run" \
            "pip install -e '.[$extra]', or move it away" >&2
        return 1
    fi
    # After an interrupted installation a package may be half there, which pip does not see: begin anew.
    if [ "$done_with" = installing ] || ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        base=$(_base_python) || return 1
        echo "making $venv with $("$base" --version)"
        rm -rf "$venv"
        mkdir "$venv"
        echo installing >"$stamp"
        "$base" -m venv "$venv" || { echo "error: $base -m venv failed, see above" >&2; return 1; }
    fi
    echo installing >"$stamp"
    echo "installing what pyproject.toml lists for '$extra' in $venv (once; torch is large, this takes some minutes)"
    # From the project's folder, as `-e PATH[extra]` would not bear every path.
    if ! (cd "$_PROJECT_ROOT" && "$venv/bin/python" -m pip install -e ".[$extra]"); then
        echo "error: the installation failed, see pip's messages above; calling this again begins anew" >&2
        return 1
    fi
    echo "$sum $extra" >"$stamp"
}

choose_python() { # EXTRA
    local extra=$1 active lacking
    for active in python python3; do
        if command -v "$active" >/dev/null && lacking=$(_lacks "$active" "$extra"); then
            PYTHON=$(command -v "$active")
            export PYTHON
            return
        fi
    done
    if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
        echo "the active environment lacks $(echo "${lacking:-python}" | paste -sd' ' -); taking .venv instead"
    fi
    if [ ! -x "$_PROJECT_ROOT/.venv/bin/python" ] || [ -f "$_PROJECT_ROOT/.venv/ulmfit-ablations.stamp" ] ||
        ! _lacks "$_PROJECT_ROOT/.venv/bin/python" "$extra" >/dev/null; then
        # The lock is held on a file that is there anyway: of two scripts started at once, one installs.
        (
            if command -v flock >/dev/null; then flock 9; fi
            _make_venv "$extra"
        ) 9<"$_PROJECT_ROOT/pyproject.toml" || return 1
    fi
    PYTHON=$_PROJECT_ROOT/.venv/bin/python
    export PYTHON
}
