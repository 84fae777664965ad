"""Reliability under abuse: kills, full disks, long runs. `python -m benchmarks.soak --help`."""
