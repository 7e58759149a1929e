"""``python -m segloss.demo``."""

from segloss.demo.command import main
from segloss.errors import exit_on_input_error

exit_on_input_error(main)
