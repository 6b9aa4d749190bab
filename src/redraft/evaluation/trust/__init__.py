"""Trust marks measured: what they said of answers that are known to be right or wrong, and models fitted on that."""
