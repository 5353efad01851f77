"""The parts of a stacking run: which lights go where, work on one frame, what is kept on disk, what the file tells."""
