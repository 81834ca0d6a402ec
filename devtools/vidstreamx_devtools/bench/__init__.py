"""Benchmarks. `transcoder`, `consumer` and `stream` are programs; each writes its section of docs/BENCHMARKS.md."""
