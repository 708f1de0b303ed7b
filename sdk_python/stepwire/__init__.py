"""Durable functions made of parallel steps."""
