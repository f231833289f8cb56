"""What runs in the image."""
