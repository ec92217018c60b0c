"""`python -m beexformer`: the command."""

from beexformer.cli import main

main()
