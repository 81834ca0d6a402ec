"""Plays streams in a browser: web servers, player pages and what a viewer sees."""
