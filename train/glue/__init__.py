"""GLUE: the nine tasks, fine-tuning, the grid of cells and its table."""
