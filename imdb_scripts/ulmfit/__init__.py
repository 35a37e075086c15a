"""The library the scripts share: ULMFiT's stages, their names, records and training loop.

Importing it, `names`, `records`, `flags` or `cli` needs neither torch nor fastai, so that sweeps and analysis
run on a machine that has only the records.
"""

__version__ = "0.1.0"
