"""Runs a plan of stage commands: `sweeps/launch.py` is the command line, each module here one idea of it.

    plan.py        the commands, and which needs which
    states.py      how each stands, from the run records
    estimates.py   how long it will take, from earlier records
    locks.py       what only one launch may have: a run, a GPU
    machine.py     GPUs and CPU slots
    local.py       runs them on this machine
    slurm.py       submits them to a cluster
    view.py        what is shown
"""
