"""The page on which the canvas can be watched: plain files, and the routes that serve them."""
