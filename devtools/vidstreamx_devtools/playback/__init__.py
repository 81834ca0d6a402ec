"""Plays streams in a browser: web servers, player pages, and observations of the playback."""
