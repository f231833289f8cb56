message("set up")
