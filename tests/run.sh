#!/usr/bin/env bash
# The tests, in an environment that has what they need: bash tests/run.sh [PYTEST ARGUMENTS]
# All of them, two files at a time; -m 'not slow' leaves out those that take long, tests/test_NAME.py runs one file, -n 0
# runs all in one process (for a debugger).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source sweeps/environment.sh
choose_python test
exec "$PYTHON" -m pytest -n 2 --dist=loadfile "$@"
