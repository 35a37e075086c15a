#!/usr/bin/env bash
# Whether speed costs quality: validation perplexity after 2 million tokens of IMDb, stock fastai and ours, seed by seed.
#     bash sweeps/speed_quality.sh            writes results/tables/speed_quality.csv and .md; called again, it goes on
#     SOURCE=data/imdb SEEDS="0 1 2" bash sweeps/speed_quality.sh --whose stock bfloat16
#     SEEDS="3 4 5" bash sweeps/speed_quality.sh --whose "stock classifier" "classifier, full precision"    more classifiers
#     bash sweeps/speed_quality.sh --pretrain_path=data/wiki --pretrain_id=wiki    and those from a pretrained language model
# On 2 cores some 20 minutes a seed with AMX, of which stock takes 11, and the classifiers as long again; twice that
# without it. Trains 2 million tokens a model and has no GPU path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source sweeps/environment.sh
choose_python train
read -ra seeds <<<"${SEEDS:-0 1 2}"
exec "$PYTHON" sweeps/speed_quality.py --source="${SOURCE:-data/imdb}" --seeds "${seeds[@]}" "$@"
