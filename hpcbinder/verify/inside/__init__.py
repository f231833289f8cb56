"""Programs that run inside of an image, with the image's Pythons: each file stands alone, with nothing of ours."""
