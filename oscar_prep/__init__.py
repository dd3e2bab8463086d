"""From OSCAR shards to packed Arrow shards of exact samples; no torch, no model."""
