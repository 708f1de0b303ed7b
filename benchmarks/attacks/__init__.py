"""What a hostile neighbour may do to an executor that others use too, each attack as a program of its own.

The messages are made beforehand and sent as bytes, so that the attacker costs the shared machine little.
"""
