"""One TOML file per complete pre-training run."""
