"""Speed and memory, each as a ratio against what a user would otherwise have: `python -m benchmarks`."""
