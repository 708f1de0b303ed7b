"""Figures: what Stepwire costs, beside what the disk and gRPC cost."""
