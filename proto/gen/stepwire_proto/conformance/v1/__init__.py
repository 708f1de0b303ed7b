"""Generated from proto/stepwire by tools/generate.py; do not edit."""
