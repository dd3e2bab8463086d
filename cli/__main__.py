"""`python -m cli` does what `symbert` does."""

from cli.main import main

main()
