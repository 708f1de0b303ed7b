"""Tests of durable functions: in one process without a server, or with a real executor on a free port."""
