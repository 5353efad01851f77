"""Stack frames: resample, weigh, normalise, reject, combine."""
