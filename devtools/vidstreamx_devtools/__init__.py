"""The Python tools of VidStreamX: the local stack, the benchmarks, and support for the end-to-end and media
tests.

`local` runs the whole system on this machine. `playback` plays streams in a browser. `streams` reads uploads
and published streams and compares them. `media` and `e2e` support the test suites in tests/. `bench` has the
benchmarks.
"""
