#!/usr/bin/env bash
# Train on the bundled ethanol set, then run 1 ps of NVE through the TorchScript export.
#   bash examples/ethanol.sh [FOLDER OF train-potential AND eqpot]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${1:+$1/}
"${bin}train-potential" training/ethanol.yaml
"${bin}eqpot" md data/ethanol/test_300K.extxyz --potential runs/ethanol/potential.pt --trust \
  --ensemble nve --temperature 300 --time "1 ps" --timestep 0.5 --output runs/ethanol/md
