"""Readers of uploads and published streams, and the checks that compare them. Independent of the tested code."""
