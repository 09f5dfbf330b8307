"""One suite for every model: a file NAME.py describes each row of the engine's registry, the test_*.py run over all."""
