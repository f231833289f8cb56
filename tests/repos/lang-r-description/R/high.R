high <- function() 42
