"""``python -m segloss.rasterise``."""

from segloss.errors import exit_on_input_error
from segloss.rasterise.command import main

exit_on_input_error(main)
