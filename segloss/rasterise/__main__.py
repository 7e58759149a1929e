"""``python -m segloss.rasterise``."""

from segloss.commands import run_command

run_command("rasterise")
