"""The training data of the bundled model: any field name, conversations, other languages.

What it knows is in `tables/`: adding a kind of text, value, field, request or foreign prompt is a line there.
"""
