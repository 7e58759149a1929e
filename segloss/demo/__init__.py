"""``python -m segloss.demo RUN``: a page on which an image is dropped, and its classes and decisions looked at."""
