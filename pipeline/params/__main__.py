"""Checks params.yaml: ``python -m pipeline.params``. Every key must be known, every value in range.

Stages do so, too, each for itself; DVC alone does not run one for a key that no stage knows.
"""

import argparse

from pipeline.cli import end_in_one_line
from pipeline.params import load_params

if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m pipeline.params", description=__doc__).parse_args()
    end_in_one_line("params", load_params)
