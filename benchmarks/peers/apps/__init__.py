"""What each system runs, written as its own documentation says; those of peers run in `.venv-bench`."""
