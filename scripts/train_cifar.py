"""Trains a network of hand-written layers on pictures: see --help, and torchfromscratch/training/."""

from torchfromscratch.entry_point import loading, run

with loading():
    from torchfromscratch.training.cli import main

if __name__ == "__main__":
    run(main)
