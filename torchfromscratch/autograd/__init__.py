"""The layers' Functions, a file for each family: every formula beside its derivative (docs/reading.md)."""
