#!/usr/bin/env bash
# The tests, in an environment that has what they need: bash tests/run.sh [PYTEST ARGUMENTS]
# All of them; -m 'not slow' leaves out those that take long, tests/test_NAME.py runs one file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source sweeps/environment.sh
choose_python test
exec "$PYTHON" -m pytest "$@"
