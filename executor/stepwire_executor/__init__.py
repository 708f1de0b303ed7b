"""The Stepwire executor."""
