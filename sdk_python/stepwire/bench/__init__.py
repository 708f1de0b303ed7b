"""What Stepwire costs, measured against any executor: `stepwire bench`."""

SLOTS = 250
"""How many each worker has unless somebody says otherwise: as many as its half of 500 runs at once."""
