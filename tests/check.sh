#!/usr/bin/env bash
# Every quick check: tests, lint, types, import contracts.
#   bash tests/check.sh [FOLDER OF pytest AND THE OTHER TOOLS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${1:+$1/}
# Two test processes of one thread each: more threads than cores would wait for each other.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
"${bin}ruff" check .
"${bin}ruff" format --check .
"${bin}mypy"
"${bin}lint-imports"
"${bin}pytest" -n 2
