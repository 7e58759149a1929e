"""Runs and folders of masks -> results of each image -> scores, comparisons, the choice of an operating point."""
