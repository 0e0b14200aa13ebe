"""The pytest plugin: the fixture `parity`, the marker `parity`, the option `--parity-report`."""
