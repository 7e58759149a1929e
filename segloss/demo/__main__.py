"""``python -m segloss.demo``."""

from segloss.commands import run_command

run_command("demo")
