# Runs a script, statement by statement, so that what fails is told with its line. install.packages only warns where it
# could not install: that is a failure here.
arguments <- commandArgs(trailingOnly = TRUE)
.hpcbinder <- list(path = arguments[2], library = arguments[3], line = 1L)
.hpcbinder$fail <- function(line, message) {
  cat("hpcbinder: ", .hpcbinder$path, ":", line, ": ", message, "\n", sep = "", file = stderr())
  quit(status = 1)
}
.hpcbinder$statements <- tryCatch(
  parse(arguments[1], keep.source = TRUE, encoding = "UTF-8"),
  error = function(e) .hpcbinder$fail(sub("^[^:]*:([0-9]+):.*", "\\1", conditionMessage(e))[1], conditionMessage(e))
)
.hpcbinder$run <- function(number) {
  source <- attr(.hpcbinder$statements, "srcref")[[number]]
  cat(paste0(c("> ", rep("+ ", length(source)))[seq_along(as.character(source))], as.character(source)), sep = "\n")
  withCallingHandlers(
    tryCatch(
      {
        result <- withVisible(eval(.hpcbinder$statements[[number]], globalenv()))
        if (result$visible) print(result$value)
      },
      error = function(e) .hpcbinder$fail(source[1], conditionMessage(e))
    ),
    warning = function(w) {
      said <- conditionMessage(w)
      if (grepl("had non-zero exit status|is not available|are not available|unable to access index", said)) {
        .hpcbinder$fail(source[1], said)
      }
    }
  )
}
for (.number in seq_along(.hpcbinder$statements)) .hpcbinder$run(.number)

.hpcbinder$there <- installed.packages(lib.loc = .hpcbinder$library)
if (nrow(.hpcbinder$there) > 0) {
  dir.create("/opt/hpcbinder/packages", recursive = TRUE, showWarnings = FALSE)
  writeLines(
    paste0("[", paste(sort(sprintf(
      '{"name": "%s", "version": "%s"}', .hpcbinder$there[, "Package"], .hpcbinder$there[, "Version"]
    )), collapse = ",\n"), "]"),
    "/opt/hpcbinder/packages/r.json"
  )
}
