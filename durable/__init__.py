"""What every stage stands on: files that are whole or absent, locks, signals, failpoints and settings."""
