# Installs the packages of a list, `NAME VERSION` or `NAME *`, and what they need.
arguments <- commandArgs(trailingOnly = TRUE)
wanted <- read.table(arguments[1], col.names = c("name", "version"), colClasses = "character")
library <- arguments[2]
repos <- getOption("repos")[["CRAN"]]

fail <- function(...) {
  cat("hpcbinder: ", ..., "\n", sep = "", file = stderr())
  quit(status = 1)
}

exact <- wanted[wanted$version != "*", ]
if (nrow(exact) > 0) {
  # In a folder that is a repository itself R finds the order to install them in.
  folder <- file.path(tempdir(), "exact", "src", "contrib")
  dir.create(folder, recursive = TRUE)
  for (row in seq_len(nrow(exact))) {
    name <- exact$name[row]
    file <- paste0(name, "_", exact$version[row], ".tar.gz")
    places <- paste0(repos, "/src/contrib/", c("", paste0("Archive/", name, "/")), file)
    found <- FALSE
    for (place in places) {
      found <- tryCatch(
        suppressWarnings(download.file(place, file.path(folder, file), mode = "wb", quiet = TRUE)) == 0,
        error = function(e) FALSE
      )
      if (found) break
    }
    if (!found) fail("CRAN has no ", name, " ", exact$version[row], " (", places[1], ")")
  }
  tools::write_PACKAGES(folder, type = "source")
  local <- paste0("file://", file.path(tempdir(), "exact"))
  # From there alone: of two versions R takes the newer one.
  install.packages(exact$name, lib = library, repos = c(exact = local))
}
newest <- wanted$name[wanted$version == "*"]
if (length(newest) > 0) install.packages(newest, lib = library)

there <- installed.packages()
missing <- setdiff(wanted$name, rownames(there))
for (name in setdiff(exact$name, missing)) {
  if (package_version(there[name, "Version"]) != exact$version[exact$name == name]) missing <- c(missing, name)
}
if (length(missing) > 0) {
  fail("could not be installed from ", repos, ": ", paste(missing, collapse = ", "), " (see above)")
}
there <- installed.packages(lib.loc = library)
entries <- sprintf('{"name": "%s", "version": "%s"}', there[, "Package"], there[, "Version"])
dir.create("/opt/hpcbinder/packages", recursive = TRUE, showWarnings = FALSE)
writeLines(paste0("[", paste(sort(entries), collapse = ",\n"), "]"), "/opt/hpcbinder/packages/r.json")
