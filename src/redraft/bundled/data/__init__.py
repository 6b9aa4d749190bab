"""The training data of the bundled model: families of generated records."""
