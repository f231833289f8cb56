# Read by every R of a step, also by those that build packages.
options(
  repos = c(CRAN = Sys.getenv("HPCBINDER_REPOS")),
  # A mirror that has binaries for this system tells by this who may have them.
  HTTPUserAgent = sprintf(
    "R/%s R (%s)", getRversion(), paste(getRversion(), R.version$platform, R.version$arch, R.version$os)
  ),
  Ncpus = max(1L, parallel::detectCores(), na.rm = TRUE),
  timeout = 600,
  menu.graphics = FALSE,
  warn = 1
)
