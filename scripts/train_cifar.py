"""Trains a network of hand-written layers on pictures: see --help, and torchfromscratch/training/."""

import sys

from torchfromscratch.training.cli import main

if __name__ == "__main__":
    sys.exit(main())
