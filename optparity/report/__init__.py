"""What a comparison found, as one HTML file."""
