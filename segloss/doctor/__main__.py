"""``python -m segloss.doctor``; started by torchrun or another launcher, each process looks at a share of the files."""

from segloss.commands import run_command

run_command("doctor")
