install.packages(c("digest", "notdebians"))
