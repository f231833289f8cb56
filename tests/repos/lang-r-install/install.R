# What the notebook loads.
options(repos = c(CRAN = "https://cloud.r-project.org"))
install.packages("digest")
install.packages(
  c("jsonlite", "notindebian"),  # the second is not Debian's
  repos = "https://cran.r-project.org", quiet = TRUE
)
packages <- c("R6", "magrittr")
install.packages(packages)
