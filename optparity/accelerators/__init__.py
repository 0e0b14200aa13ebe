"""What GPUs and TPUs make of the rules, read from the programs that their compilers write: none of the devices is needed."""
