"""Checks of a published stream against its source, one subject per module."""
