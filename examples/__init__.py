"""Programs that show Stepwire at work; each is run by a test."""
