"""The parts that requests are made of."""
