"""Programs that run inside of an image, with the image's Python: each file stands alone, with nothing of ours."""
