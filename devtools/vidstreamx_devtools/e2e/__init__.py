"""Support for the end-to-end tests: a stack, scenarios with many uploads, and monitors of their streams."""
