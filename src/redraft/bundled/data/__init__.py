"""What the bundled model learns from: families of records, made on the way."""
