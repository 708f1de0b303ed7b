"""The executor's core: where a run's state changes. Pure: no I/O, no clock, no randomness, no Protobuf, no SQL."""
