DATA = __file__
