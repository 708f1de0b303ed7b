"""What Stepwire costs, measured against any executor: `stepwire bench`."""
