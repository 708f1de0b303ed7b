"""The main job, watched: a text is cut, summarised in parallel by several processes, while things go wrong."""
