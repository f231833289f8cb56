import pillow_of_none
import PIL
