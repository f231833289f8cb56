from on_the_login_node import inside  # noqa: F401
from small_image import small_image  # noqa: F401
from workers_image import workers_image  # noqa: F401
