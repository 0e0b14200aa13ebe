"""What a run did, step by step, written down while it runs: recorded, replayed, and compared with another run."""
