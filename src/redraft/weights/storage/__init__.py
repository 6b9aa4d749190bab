"""The files of a checkpoint: headers, tensor names, shards, and replacing a checkpoint as a whole."""
