if (!requireNamespace("remotes", quietly = TRUE))
  install.packages("remotes")
install.packages("digest")
remotes::install_github("someone/something")
source("helpers/setup.R")
for (name in c("a", "b")) {
  install.packages("crayon")
}
