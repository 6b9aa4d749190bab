"""What a device should reach: products alone, and a roofline from a model's shape."""
