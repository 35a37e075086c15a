#!/usr/bin/env bash
# Speed and memory of every heavy stage beside stock fastai, on this machine, in turn:
#     bash sweeps/speed.sh                    writes results/tables/speed.* and results/figures/speed.*
#     DATA=data/imdb ROUNDS=3 bash sweeps/speed.sh
#     bash sweeps/speed.sh --name=avx2        writes speed-avx2.*, beside those of another machine
# DATA is IMDb after create_toks and tok2id --max_vocab=30000. Some 20 minutes on 2 cores; run nothing beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source sweeps/environment.sh
choose_python train
exec "$PYTHON" sweeps/speed.py --data="${DATA:-data/imdb}" --rounds="${ROUNDS:-3}" "$@"
