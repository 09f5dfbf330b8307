"""The published benchmarks as tasks: `kosmos-edge eval TASK`. A task is a module and a row in registry.py."""
