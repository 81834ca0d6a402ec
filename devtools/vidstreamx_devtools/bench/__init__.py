"""The benchmarks: `transcoder`, `consumer` and `stream`. Each writes its section of docs/BENCHMARKS.md.

Each program has a module `report_*` that formats its results. `program` has what the three programs share.
"""
