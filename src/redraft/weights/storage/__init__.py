"""Files of a checkpoint: headers, names, shards, and replacing one as a whole."""
