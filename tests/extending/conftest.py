from small_image import small_image  # noqa: F401
