"""Jobs over files of rows: a folder that can be killed at any moment and gone on with."""
