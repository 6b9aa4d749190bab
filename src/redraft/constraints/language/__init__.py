"""Languages of byte strings: expressions and what is compiled into them."""
