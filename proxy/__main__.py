"""`python -m proxy`: the `tollkeeper` command."""

from proxy.cli import main

main(prog_name="tollkeeper")
