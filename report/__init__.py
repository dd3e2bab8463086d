"""Pages, plots and tables, read from the folders that the other commands write."""
