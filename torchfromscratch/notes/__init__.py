"""The lecture notes, running: their worked examples and their claims, computed by this package's layers."""
