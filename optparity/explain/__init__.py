"""Why two optimizers part: the conventions in which they are known to differ, tried one after another."""
