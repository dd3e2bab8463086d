"""Pre-training and fine-tuning of symbert models."""
