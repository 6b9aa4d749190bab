"""Trust marks: what is known about an answer without knowing the truth, and one calibrated number made of it."""
