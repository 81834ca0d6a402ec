"""Readers of uploads and published streams, independent of the tested code, and checks that compare them."""
