"""What the code of a function's body calls: steps, and the context of its run. Above the replay machine."""
