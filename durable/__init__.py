"""What every stage stands on: files that are whole or absent, locks, signals, failpoints and settings."""

__version__ = "0.1.0"
"""Of symbert: here, where every package may import it and nothing heavy comes with it."""
