#!/usr/bin/env bash
# What averaging a forward and a backward classifier brings, on test.
#     SEEDS="0 1 2" DATA=data/trec6 PROFILE=small bash sweeps/bidirectional.sh [--print | --dry_run | --status]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

plan() {
    local seed
    for seed in $SEEDS; do
        ulmfit_on_test "$seed"
        ulmfit_on_test "$seed" --backwards
        ensemble "$seed" fwd bwd
    done
    report bidirectional
}

sweep "$@"
