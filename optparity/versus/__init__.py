"""Any two optimizers, or any two runs, against each other: what is compared, how it is judged, what was found."""
